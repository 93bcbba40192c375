//! The mapper SDK: drivers, sessions and the mapper that turns them into a device mapper.
