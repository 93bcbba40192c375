//! EventBus: the bridge between MQTT topics and messages.
