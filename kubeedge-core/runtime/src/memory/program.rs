//! The language of programs in memory: reading and running it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use kubeedge_core::runtime::{ContainerSpec, Output};
use tokio::sync::{mpsc, watch};

/// A step of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Exit(i32),
    Wait(Option<Duration>),
    WhenAsked(Answer),
    Print(String),
    Warn(String),
    Env(String),
    Read(PathBuf),
    Write(PathBuf, String),
    Copy,
}

/// What a program does when it is asked to end while it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    End,
    Farewell(String),
    Nothing,
}

/// A program that cannot be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("exec: \"{0}\": no such step; the steps of a program in memory are described with MemoryRuntime")]
    Unknown(String),
    #[error("exec: \"{0}\": operands missing, too many or no number")]
    Operands(String),
}

/// Reads a program.
pub(super) fn parse(words: &[String]) -> Result<Vec<Step>, ProgramError> {
    let mut steps = Vec::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if word == "args" {
            steps.extend(after.iter().map(|word| Step::Print(format!("[{word}]\n"))));
            break;
        }
        let end = after.iter().position(|word| word == ";").unwrap_or(after.len());
        let (operands, next) = after.split_at(end);
        steps.push(step(word, operands)?);
        rest = next.get(1..).unwrap_or_default();
    }
    Ok(steps)
}

fn step(word: &str, operands: &[String]) -> Result<Step, ProgramError> {
    let wrong = || ProgramError::Operands(word.to_owned());
    let number = |text: &str| text.parse::<i32>().map_err(|_| wrong());
    Ok(match (word, operands) {
        ("exit", [code]) => Step::Exit(number(code)?),
        ("signal", [n]) => Step::Exit(128_i32.saturating_add(number(n)?)),
        ("sleep", [time]) => {
            let time = time.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            Step::Wait(Some(time.ok_or_else(wrong)?))
        }
        ("wait", []) => Step::Wait(None),
        ("trap", [text]) => Step::WhenAsked(Answer::Farewell(format!("{text}\n"))),
        ("ignore", []) => Step::WhenAsked(Answer::Nothing),
        ("echo", [text]) => Step::Print(format!("{text}\n")),
        ("print", [text]) => Step::Print(text.clone()),
        ("warn", [text]) => Step::Warn(text.clone()),
        ("env", [name]) => Step::Env(name.clone()),
        ("read", [path]) => Step::Read(path.into()),
        ("write", [path, text]) => Step::Write(path.into(), text.clone()),
        ("copy", []) => Step::Copy,
        (
            "exit" | "signal" | "sleep" | "wait" | "trap" | "ignore" | "echo" | "print" | "warn" | "env"
            | "read" | "write" | "copy",
            _,
        ) => return Err(wrong()),
        _ => return Err(ProgramError::Unknown(word.to_owned())),
    })
}

/// What a running program sees.
#[derive(Debug)]
pub(super) struct World {
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) out: mpsc::Sender<Output>,
    pub(super) input: Option<mpsc::Receiver<Bytes>>,
    pub(super) asked: watch::Receiver<bool>,
}

/// Runs a program to its end; its exit code.
pub(super) async fn run(steps: Vec<Step>, world: &mut World) -> i32 {
    let mut answer = Answer::End;
    for step in steps {
        let ended = match step {
            Step::Exit(code) => Some(code),
            Step::Wait(time) => world.wait(time, &answer).await,
            Step::WhenAsked(new) => {
                answer = new;
                None
            }
            Step::Print(text) => world.print(text).await,
            Step::Warn(text) => world.say(Output::Stderr(text.into())).await,
            Step::Env(name) => {
                let value = world.spec.env.iter().rfind(|(known, _)| *known == name);
                let value = value.map(|(_, value)| value.clone()).unwrap_or_default();
                world.print(format!("{value}\n")).await
            }
            Step::Read(path) => world.read(path).await,
            Step::Write(path, text) => world.write(path, text).await,
            Step::Copy => world.copy().await,
        };
        if let Some(code) = ended {
            return code;
        }
    }
    0
}

impl World {
    /// What a program does with a pipe nobody reads any more: it dies.
    const BROKEN_PIPE: i32 = 128 + 13;

    async fn say(&self, what: Output) -> Option<i32> {
        self.out.send(what).await.err().map(|_| Self::BROKEN_PIPE)
    }

    async fn print(&self, text: String) -> Option<i32> {
        self.say(Output::Stdout(text.into())).await
    }

    async fn wait(&mut self, time: Option<Duration>, answer: &Answer) -> Option<i32> {
        let pass = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let mut asked = self.asked.clone();
        let ask = async {
            // Nobody is left who could ask.
            if *answer == Answer::Nothing || asked.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = pass => return None,
            () = ask => {}
        }
        match answer {
            Answer::Farewell(text) => {
                self.print(text.clone()).await;
                Some(0)
            }
            Answer::End | Answer::Nothing => Some(128 + 15),
        }
    }

    /// Where a path of the container is on the host, and whether it may be written.
    fn locate(&self, path: &std::path::Path) -> Option<(PathBuf, bool)> {
        let path = &std::path::Path::new(&self.spec.working_dir).join(path);
        let covers = |mount: &&kubeedge_core::runtime::Mount| path.starts_with(&mount.container_path);
        let deepest = |mount: &&kubeedge_core::runtime::Mount| mount.container_path.components().count();
        let mount = self.spec.mounts.iter().filter(covers).max_by_key(deepest)?;
        let rest = path.strip_prefix(&mount.container_path).ok()?;
        // Joining nothing would add a slash, which names no file.
        let host =
            if rest.as_os_str().is_empty() { mount.host_path.clone() } else { mount.host_path.join(rest) };
        Some((host, !mount.readonly))
    }

    async fn complain(&self, path: &std::path::Path, why: &str) -> Option<i32> {
        self.say(Output::Stderr(format!("{}: {why}\n", path.display()).into())).await;
        Some(1)
    }

    async fn read(&self, path: PathBuf) -> Option<i32> {
        let Some((host, _)) = self.locate(&path) else { return self.complain(&path, "is not mounted").await };
        match tokio::fs::read(host).await {
            Ok(bytes) => self.say(Output::Stdout(bytes.into())).await,
            Err(error) => self.complain(&path, &error.to_string()).await,
        }
    }

    async fn write(&self, path: PathBuf, text: String) -> Option<i32> {
        let host = match self.locate(&path) {
            None => return self.complain(&path, "is not mounted").await,
            Some((_, false)) => return self.complain(&path, "Read-only file system").await,
            Some((host, true)) => host,
        };
        match tokio::fs::write(host, text).await {
            Ok(()) => None,
            Err(error) => self.complain(&path, &error.to_string()).await,
        }
    }

    async fn copy(&mut self) -> Option<i32> {
        let mut input = self.input.take()?;
        while let Some(bytes) = input.recv().await {
            if let Some(code) = self.say(Output::Stdout(bytes)).await {
                return Some(code);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<Step>, ProgramError> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn steps_are_read_in_order_and_mistakes_are_named() {
        let steps = read(&["trap", "bye", ";", "sleep", "1.5", ";", "exit", "3"]).unwrap();
        let sleep = Step::Wait(Some(Duration::from_millis(1500)));
        let trap = Step::WhenAsked(Answer::Farewell("bye\n".into()));
        assert_eq!(steps, [trap, sleep, Step::Exit(3)]);
        assert_eq!(read(&["args", "a", ";"]).unwrap().len(), 2);
        assert_eq!(read(&[]), Ok(vec![]));
        assert_eq!(read(&["fly"]), Err(ProgramError::Unknown("fly".into())));
        for wrong in [&["sleep"][..], &["sleep", "-1"], &["exit", "x"], &["wait", "5"]] {
            assert_eq!(read(wrong), Err(ProgramError::Operands(wrong[0].into())));
        }
    }
}
