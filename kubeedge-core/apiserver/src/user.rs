//! Who makes a request.

/// A user and the groups it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// This program itself.
    pub(crate) fn ourselves() -> Self {
        Self { name: "system:kubeedge:cloudcore".to_owned(), groups: vec!["system:masters".to_owned()] }
    }

    /// A node, as its certificate names it.
    pub(crate) fn of_node(name: &str) -> Self {
        Self { name: format!("system:node:{name}"), groups: vec!["system:nodes".to_owned()] }
    }

    /// The node this user is, if it is one.
    pub(crate) fn node(&self) -> Option<&str> {
        let of_nodes = self.groups.iter().any(|group| group == "system:nodes");
        self.name.strip_prefix("system:node:").filter(|_| of_nodes)
    }
}
