//! The controllers of cloudcore. Go sizes a queue and a pool of workers for each kind of message; ours have
//! one bounded queue for each module, so these keys are read and not acted on.

use super::super::section::section;

section! {
    /// Pods, nodes, ConfigMaps and the like.
    EdgeController {
        /// Whether it runs.
        enable: bool = true,
        /// The least age, in seconds, of a node's status before an unchanged one is written again.
        node_update_frequency: u32 = 10,
        /// Queues.
        buffer: EdgeControllerBuffer = EdgeControllerBuffer::default(),
        /// Workers.
        load: EdgeControllerLoad = EdgeControllerLoad::default(),
    }
}

section! {
    /// Devices.
    DeviceController {
        /// Whether it runs.
        enable: bool = true,
        /// Queues.
        buffer: DeviceControllerBuffer = DeviceControllerBuffer::default(),
        /// Workers.
        load: DeviceControllerLoad = DeviceControllerLoad::default(),
    }
}

section! {
    /// Node jobs.
    TaskManager {
        /// Whether it runs.
        enable: bool = false,
        /// Queues.
        buffer: TaskManagerBuffer = TaskManagerBuffer::default(),
        /// Workers.
        load: TaskManagerLoad = TaskManagerLoad::default(),
    }
}

section! {
    /// How many messages may wait, by kind.
    EdgeControllerBuffer {
        /// Messages of the kind `certificateSigningRequest` that may wait.
        certificate_signing_request: u32 = 1024,
        /// Messages of the kind `configMapEvent` that may wait.
        config_map_event: u32 = 1,
        /// Messages of the kind `createLease` that may wait.
        create_lease: u32 = 1524,
        /// Messages of the kind `createNode` that may wait.
        create_node: u32 = 1024,
        /// Messages of the kind `createPod` that may wait.
        create_pod: u32 = 1024,
        /// Messages of the kind `deletePod` that may wait.
        delete_pod: u32 = 1024,
        /// Messages of the kind `patchNode` that may wait.
        patch_node: u32 = 1274,
        /// Messages of the kind `patchPod` that may wait.
        patch_pod: u32 = 1024,
        /// Messages of the kind `podEvent` that may wait.
        pod_event: u32 = 1,
        /// Messages of the kind `processEvent` that may wait.
        process_event: u32 = 1024,
        /// Messages of the kind `queryConfigMap` that may wait.
        query_config_map: u32 = 1024,
        /// Messages of the kind `queryLease` that may wait.
        query_lease: u32 = 1024,
        /// Messages of the kind `queryNode` that may wait.
        query_node: u32 = 1524,
        /// Messages of the kind `queryPersistentVolume` that may wait.
        query_persistent_volume: u32 = 1024,
        /// Messages of the kind `queryPersistentVolumeClaim` that may wait.
        query_persistent_volume_claim: u32 = 1024,
        /// Messages of the kind `querySecret` that may wait.
        query_secret: u32 = 1024,
        /// Messages of the kind `queryVolumeAttachment` that may wait.
        query_volume_attachment: u32 = 1024,
        /// Messages of the kind `ruleEndpointsEvent` that may wait.
        rule_endpoints_event: u32 = 1,
        /// Messages of the kind `rulesEvent` that may wait.
        rules_event: u32 = 1,
        /// Messages of the kind `secretEvent` that may wait.
        secret_event: u32 = 1,
        /// Messages of the kind `serviceAccountToken` that may wait.
        service_account_token: u32 = 1024,
        /// Messages of the kind `updateNode` that may wait.
        update_node: u32 = 1024,
        /// Messages of the kind `updateNodeStatus` that may wait.
        update_node_status: u32 = 1024,
        /// Messages of the kind `updatePodStatus` that may wait.
        update_pod_status: u32 = 1024,
    }
}

section! {
    /// How many workers there are, by kind of message.
    EdgeControllerLoad {
        /// Workers for `CreatePod`.
        #[serde(rename = "CreatePodWorks")]
        create_pod_works: u32 = 4,
        /// Workers for `ServiceAccountToken`.
        #[serde(rename = "ServiceAccountTokenWorkers")]
        service_account_token_workers: u32 = 100,
        /// Workers for `UpdateRuleStatus`.
        #[serde(rename = "UpdateRuleStatusWorkers")]
        update_rule_status_workers: u32 = 4,
        /// Workers for `certificateSigningRequest`.
        certificate_signing_request_workers: u32 = 4,
        /// Workers for `createLease`.
        create_lease_workers: u32 = 500,
        /// Workers for `createNode`.
        create_node_workers: u32 = 100,
        /// Workers for `deletePod`.
        delete_pod_workers: u32 = 100,
        /// Workers for `patchNode`.
        patch_node_workers: u32 = 110,
        /// Workers for `patchPod`.
        patch_pod_workers: u32 = 100,
        /// Workers for `processEvent`.
        process_event_workers: u32 = 4,
        /// Workers for `queryConfigMap`.
        query_config_map_workers: u32 = 100,
        /// Workers for `queryLease`.
        query_lease_workers: u32 = 100,
        /// Workers for `queryNode`.
        query_node_workers: u32 = 500,
        /// Workers for `queryPersistentVolumeClaim`.
        query_persistent_volume_claim_workers: u32 = 4,
        /// Workers for `queryPersistentVolume`.
        query_persistent_volume_workers: u32 = 4,
        /// Workers for `querySecret`.
        query_secret_workers: u32 = 100,
        /// Workers for `queryVolumeAttachment`.
        query_volume_attachment_workers: u32 = 4,
        /// Workers for `updateNodeStatus`.
        update_node_status_workers: u32 = 1,
        /// Workers for `updateNode`.
        update_node_workers: u32 = 4,
        /// Workers for `updatePodStatus`.
        update_pod_status_workers: u32 = 1,
    }
}

section! {
    /// How many messages may wait, by kind.
    DeviceControllerBuffer {
        /// Messages of the kind `deviceEvent` that may wait.
        device_event: u32 = 1,
        /// Messages of the kind `deviceModelEvent` that may wait.
        device_model_event: u32 = 1,
        /// Messages of the kind `updateDeviceStatus` that may wait.
        update_device_status: u32 = 1024,
        /// Messages of the kind `updateDeviceTwins` that may wait.
        update_device_twins: u32 = 1024,
    }
    optional {
        /// Messages of the kind `deviceStatusEvent` that may wait.
        device_status_event: u32,
    }
}

section! {
    /// How many workers there are, by kind of message.
    DeviceControllerLoad {
        /// Workers for `updateDeviceStatus`.
        update_device_status_workers: u32 = 1,
    }
}

section! {
    /// How many messages may wait, by kind.
    TaskManagerBuffer {
        /// Messages of the kind `taskEvent` that may wait.
        task_event: u32 = 1,
        /// Messages of the kind `taskStatus` that may wait.
        task_status: u32 = 1024,
    }
}

section! {
    /// How many workers there are, by kind of message.
    TaskManagerLoad {
        /// Workers for `task`.
        task_workers: u32 = 1,
    }
}
