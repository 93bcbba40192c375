//! The fields of Kubernetes' messages: number, name and shape.
//!
//! Shapes: `text`, `int`, `bool`, `bytes`, `time`, `quantity`, `intstr`, maps of text to `map` (text),
//! `bytesmap` and `quantities`, the name of another message, and `-` for what the server decides itself. `[]`
//! marks a list, `?` a field whose zero means something.

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub number: u64,
    pub name: &'static str,
    pub shape: &'static str,
    pub repeated: bool,
    pub optional: bool,
}

const MESSAGES: &[(&str, &str)] = &[
    ("TypeMeta", "1 apiVersion text,2 kind text"),
    ("Time", "1 seconds int,2 nanos int"),
    ("Quantity", "1 string text"),
    ("IntOrString", "1 type int,2 intVal int?,3 strVal text?"),
    (
        "ObjectMeta",
        "1 name text,2 generateName text,3 namespace text,4 selfLink -,5 uid text,6 resourceVersion text,7 generation int,8 creationTimestamp time,9 deletionTimestamp time,10 deletionGracePeriodSeconds int?,11 labels map,12 annotations map,13 ownerReferences []OwnerReference,14 finalizers []text",
    ),
    (
        "OwnerReference",
        "1 kind text,3 name text,4 uid text,5 apiVersion text,6 controller bool?,7 blockOwnerDeletion bool?",
    ),
    (
        "DeleteOptions",
        "1 gracePeriodSeconds int?,2 preconditions Preconditions,3 orphanDependents bool?,4 propagationPolicy text,5 dryRun []text",
    ),
    ("Preconditions", "1 uid text,2 resourceVersion text"),
    ("LabelSelector", "1 matchLabels map,2 matchExpressions []LabelSelectorRequirement"),
    ("LabelSelectorRequirement", "1 key text,2 operator text,3 values []text"),
    ("Namespace", "1 metadata ObjectMeta,2 spec NamespaceSpec,3 status -"),
    ("NamespaceSpec", "1 finalizers []text"),
    ("ConfigMap", "1 metadata ObjectMeta,2 data map,3 binaryData bytesmap,4 immutable bool?"),
    ("Secret", "1 metadata ObjectMeta,2 data bytesmap,3 type text,4 stringData map,5 immutable bool?"),
    (
        "ServiceAccount",
        "1 metadata ObjectMeta,2 secrets []ObjectReference,3 imagePullSecrets []LocalObjectReference,4 automountServiceAccountToken bool?",
    ),
    (
        "ObjectReference",
        "1 kind text,2 namespace text,3 name text,4 uid text,5 apiVersion text,6 resourceVersion text,7 fieldPath text",
    ),
    ("LocalObjectReference", "1 name text"),
    ("Service", "1 metadata ObjectMeta,2 spec ServiceSpec,3 status -"),
    (
        "ServiceSpec",
        "1 ports []ServicePort,2 selector map,3 clusterIP text,4 type text,5 externalIPs []text,7 sessionAffinity text,8 loadBalancerIP text,10 externalName text,11 externalTrafficPolicy text,12 healthCheckNodePort int,13 publishNotReadyAddresses bool",
    ),
    (
        "ServicePort",
        "1 name text,2 protocol text,3 port int,4 targetPort intstr,5 nodePort int,6 appProtocol text",
    ),
    ("ResourceQuota", "1 metadata ObjectMeta,2 spec ResourceQuotaSpec,3 status -"),
    ("ResourceQuotaSpec", "1 hard quantities,2 scopes []text"),
    ("Pod", "1 metadata ObjectMeta,2 spec PodSpec,3 status -"),
    ("PodTemplateSpec", "1 metadata ObjectMeta,2 spec PodSpec"),
    (
        "PodSpec",
        "2 containers []Container,3 restartPolicy text,4 terminationGracePeriodSeconds int?,5 activeDeadlineSeconds int?,6 dnsPolicy text,7 nodeSelector map,8 serviceAccountName text,9 serviceAccount text,10 nodeName text,11 hostNetwork bool,12 hostPID bool,13 hostIPC bool,14 securityContext NoFields?,15 imagePullSecrets []LocalObjectReference,16 hostname text,17 subdomain text,19 schedulerName text,20 initContainers []Container,21 automountServiceAccountToken bool?,24 priorityClassName text",
    ),
    ("NoFields", ""),
    (
        "Container",
        "1 name text,2 image text,3 command []text,4 args []text,5 workingDir text,6 ports []ContainerPort,7 env []EnvVar,8 resources ResourceRequirements,13 terminationMessagePath text,14 imagePullPolicy text,16 stdin bool,17 stdinOnce bool,18 tty bool,20 terminationMessagePolicy text",
    ),
    ("ContainerPort", "1 name text,2 hostPort int,3 containerPort int,4 protocol text,5 hostIP text"),
    ("EnvVar", "1 name text,2 value text"),
    ("ResourceRequirements", "1 limits quantities,2 requests quantities"),
    ("Deployment", "1 metadata ObjectMeta,2 spec DeploymentSpec,3 status -"),
    (
        "DeploymentSpec",
        "1 replicas int?,2 selector LabelSelector,3 template PodTemplateSpec,4 strategy DeploymentStrategy,5 minReadySeconds int,6 revisionHistoryLimit int?,7 paused bool,9 progressDeadlineSeconds int?",
    ),
    ("DeploymentStrategy", "1 type text,2 rollingUpdate RollingUpdateDeployment"),
    ("RollingUpdateDeployment", "1 maxUnavailable intstr?,2 maxSurge intstr?"),
    ("Job", "1 metadata ObjectMeta,2 spec JobSpec,3 status -"),
    (
        "JobSpec",
        "1 parallelism int?,2 completions int?,3 activeDeadlineSeconds int?,4 selector LabelSelector,5 manualSelector bool?,6 template PodTemplateSpec,7 backoffLimit int?,8 ttlSecondsAfterFinished int?,9 completionMode text,10 suspend bool?",
    ),
    ("Eviction", "1 metadata ObjectMeta,2 deleteOptions DeleteOptions"),
    ("PodDisruptionBudget", "1 metadata ObjectMeta,2 spec PodDisruptionBudgetSpec,3 status -"),
    (
        "PodDisruptionBudgetSpec",
        "1 minAvailable intstr?,2 selector LabelSelector,3 maxUnavailable intstr?,4 unhealthyPodEvictionPolicy text",
    ),
    (
        "PriorityClass",
        "1 metadata ObjectMeta,2 value int?,3 globalDefault bool,4 description text,5 preemptionPolicy text",
    ),
    ("Role", "1 metadata ObjectMeta,2 rules []PolicyRule"),
    ("ClusterRole", "1 metadata ObjectMeta,2 rules []PolicyRule,3 aggregationRule AggregationRule"),
    ("AggregationRule", "1 clusterRoleSelectors []LabelSelector"),
    (
        "PolicyRule",
        "1 verbs []text,2 apiGroups []text,3 resources []text,4 resourceNames []text,5 nonResourceURLs []text",
    ),
    ("RoleBinding", "1 metadata ObjectMeta,2 subjects []Subject,3 roleRef RoleRef"),
    ("ClusterRoleBinding", "1 metadata ObjectMeta,2 subjects []Subject,3 roleRef RoleRef"),
    ("Subject", "1 kind text,2 apiGroup text,3 name text,4 namespace text"),
    ("RoleRef", "1 apiGroup text,2 kind text,3 name text"),
    ("TokenRequest", "1 metadata ObjectMeta,2 spec TokenRequestSpec,3 status -"),
    ("TokenRequestSpec", "1 audiences []text,3 boundObjectRef BoundObjectReference,4 expirationSeconds int?"),
    ("BoundObjectReference", "1 kind text,2 apiVersion text,3 name text,4 uid text"),
    ("SelfSubjectReview", "1 metadata ObjectMeta,2 status -"),
    ("SelfSubjectRulesReview", "1 metadata ObjectMeta,2 spec SelfSubjectRulesReviewSpec,3 status -"),
    ("SelfSubjectRulesReviewSpec", "1 namespace text"),
    ("SelfSubjectAccessReview", "1 metadata ObjectMeta,2 spec SelfSubjectAccessReviewSpec,3 status -"),
    (
        "SelfSubjectAccessReviewSpec",
        "1 resourceAttributes ResourceAttributes,2 nonResourceAttributes NonResourceAttributes",
    ),
    (
        "ResourceAttributes",
        "1 namespace text,2 verb text,3 group text,4 version text,5 resource text,6 subresource text,7 name text",
    ),
    ("NonResourceAttributes", "1 path text,2 verb text"),
];

/// The fields of a message, if it is known.
pub(super) fn fields(message: &str) -> Option<Vec<Field>> {
    let (_, text) = MESSAGES.iter().find(|(name, _)| *name == message)?;
    Some(text.split(',').filter_map(field).collect())
}

fn field(text: &'static str) -> Option<Field> {
    let mut words = text.split(' ');
    let (number, name, shape) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let repeated = shape.starts_with("[]");
    let optional = shape.ends_with('?');
    let shape = shape.trim_start_matches("[]").trim_end_matches('?');
    Some(Field { number, name, shape, repeated, optional })
}

/// Every line can be read, and every message it names is there.
#[cfg(test)]
pub(super) fn check() {
    const PLAIN: &str = "- text int bool bytes time quantity intstr map bytesmap quantities";
    for (message, text) in MESSAGES {
        let known = fields(message).unwrap();
        assert_eq!(known.len(), text.split(',').filter(|part| !part.is_empty()).count(), "{message}");
        for field in known {
            let is_known =
                PLAIN.split(' ').any(|plain| plain == field.shape) || fields(field.shape).is_some();
            assert!(is_known, "{message}.{}: {}", field.name, field.shape);
        }
    }
}
