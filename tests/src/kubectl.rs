//! kubectl on a cluster of a test's own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    PATIENCE,
    process::{repository, run, sh, until},
};

/// kubectl with a kubeconfig.
#[derive(Debug)]
pub struct Kubectl {
    program: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// On the cluster of this kubeconfig, with files of its own in this folder.
    pub fn new(folder: &Path, kubeconfig: &Path) -> Self {
        Self { program: "kubectl".into(), folder: folder.to_owned(), kubeconfig: kubeconfig.to_owned() }
    }

    /// Another kubectl on the same cluster.
    pub fn by(&self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..Self::new(&self.folder, &self.kubeconfig) }
    }

    /// The folder everything of this test is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// A call of it, in the folder of the repository.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).current_dir(repository());
        // Discovery of another cluster on the same port would be taken for this one's.
        command.env("KUBECACHEDIR", self.folder.join("cache"));
        command
    }

    /// Runs kubectl; what it printed, if it succeeded, else what it complained of.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = run(&mut self.command(args));
        let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if status.success() { Ok(format!("{said}{complained}")) } else { Err(format!("{said}{complained}")) }
    }

    /// Runs kubectl, which must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|said| panic!("kubectl {args:?}:\n{said}"))
    }

    /// Runs kubectl on a document of the test's own.
    pub fn apply(&self, document: &str) -> Result<String, String> {
        let file = self.folder.join("document.yaml");
        // kubectl takes what begins with a brace for JSON.
        std::fs::write(&file, format!("---\n{document}")).unwrap();
        self.try_kubectl(&["apply", "-f", &file.display().to_string()])
    }

    /// An object as the API has it.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).unwrap()
    }

    /// The token with which nodes join, as cloudcore keeps it in its secret.
    pub fn join_token(&self) -> String {
        let encoded =
            self.kubectl(&["get", "secret", "-nkubeedge", "tokensecret", "-ojsonpath={.data.tokendata}"]);
        sh(&format!("echo {encoded} | base64 -d"), &self.folder, &[])
    }

    /// Waits until kubectl prints what is wanted.
    pub fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        until(&format!("kubectl {args:?}"), PATIENCE, || {
            let said = self.try_kubectl(args)?;
            if wanted(&said) { Ok(said) } else { Err(said) }
        })
    }
}
