//! EdgeController: nodes, pods, ConfigMaps and Secrets.
