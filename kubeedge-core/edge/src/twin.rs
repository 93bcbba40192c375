//! DeviceTwin: what devices report and what is wished of them.
