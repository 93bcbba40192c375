//! Feature gates: switches for what is not yet on by default.

use std::collections::BTreeMap;

use super::check::Checks;

/// The gates of both components, all off unless switched on. Go's map `featureGates` in the file.
pub type FeatureGates = BTreeMap<String, bool>;

/// A feature gate that Go KubeEdge 1.23 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Gate {
    /// The local Kubernetes API of edges asks who calls and what they may do.
    RequireAuthorization,
    /// Modules that ended are started again. Ours always are, by their policy.
    ModuleRestart,
    /// Node jobs in the older form.
    DisableNodeTaskV1alpha2,
}

impl Gate {
    /// All of them.
    pub const ALL: [Self; 3] =
        [Self::RequireAuthorization, Self::ModuleRestart, Self::DisableNodeTaskV1alpha2];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequireAuthorization => "requireAuthorization",
            Self::ModuleRestart => "moduleRestart",
            Self::DisableNodeTaskV1alpha2 => "disableNodeTaskV1alpha2",
        }
    }

    /// Whether it is on.
    pub fn is_on(self, gates: &FeatureGates) -> bool {
        gates.get(self.name()).copied().unwrap_or(false)
    }
}

pub(super) fn check(gates: Option<&FeatureGates>, checks: &mut Checks) {
    let names: Vec<_> = Gate::ALL.iter().map(|gate| gate.name()).collect();
    for gate in gates.into_iter().flat_map(BTreeMap::keys) {
        let known = names.contains(&gate.as_str());
        let path = format!("featureGates.{gate}");
        checks.must(known, &path, || format!("unknown feature gate; there are {}", names.join(", ")));
    }
}
