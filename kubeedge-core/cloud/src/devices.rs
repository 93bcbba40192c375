//! DeviceController: devices and device models to the edge, twins and states back.
