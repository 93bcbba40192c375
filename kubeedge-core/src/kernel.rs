//! The kernel: runs modules, contains their panics, restarts them by policy, and shuts them down in time.
//!
//! ```
//! use async_trait::async_trait;
//! use kubeedge_core::{failure::BoxError, kernel::{Kernel, Module, ModuleContext}, name::{Group, ModuleName}};
//!
//! struct Watchdog;
//!
//! #[async_trait]
//! impl Module for Watchdog {
//!     fn name(&self) -> ModuleName { ModuleName::of("acme-watchdog") }
//!     fn group(&self) -> Group { Group::USER }
//!     async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
//!         ctx.shutdown.requested().await;
//!         Ok(())
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let kernel = Kernel::builder().module(Watchdog).build().unwrap();
//! kernel.run(async { /* for example: a signal */ }).await.unwrap();
//! # });
//! ```

use std::{any::Any, collections::HashSet, fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, Inbox},
    clock::Clock,
    failure::BoxError,
    name::{Group, ModuleName},
};

/// The wish that everything should end; every long-lived loop holds one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A shutdown of one's own, for tests and for parts that end before the whole.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes when the end is wished for. Cancel-safe.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Whether the end is wished for.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Wishes for the end of this and of everything made from it with [`Shutdown::child`].
    pub fn request(&self) {
        self.0.cancel();
    }

    /// A shutdown that ends with this one, and may end earlier.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// What a module gets to work with.
#[derive(Debug)]
pub struct ModuleContext {
    /// The way to other modules.
    pub bus: Bus,
    /// The module's own mailbox. It survives a restart: messages that arrive meanwhile wait in it.
    pub inbox: Inbox,
    /// When to end.
    pub shutdown: Shutdown,
}

/// One part of cloudcore or edgecore, of ours or of a vendor's.
#[async_trait]
pub trait Module: Send + 'static {
    /// The name others send to; one of a kind.
    fn name(&self) -> ModuleName;

    /// The group others publish to.
    fn group(&self) -> Group;

    /// How many messages may wait in the mailbox before senders must wait. KubeEdge's is 1024.
    fn inbox_depth(&self) -> usize {
        1024
    }

    /// Works until the shutdown is requested, then returns `Ok`. Returning earlier with `Ok` means the work is
    /// done; an error or a panic is handled as the module's [`Restart`] policy says.
    async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError>;

    /// Called once after `start` has returned or panicked; must be quick and must not fail.
    async fn cleanup(&mut self) {}
}

/// How often and how soon a failed module is started anew.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// The pause before the first restart.
    pub first: Duration,
    /// By how much the pause grows from one failure to the next.
    pub factor: f64,
    /// The longest pause.
    pub cap: Duration,
    /// How many restarts before the whole gives up; `None` for no limit.
    pub limit: Option<u32>,
}

impl Default for Restart {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(60), limit: None }
    }
}

/// Why the kernel ended other than by an orderly shutdown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Two modules have the same name.
    #[error("two modules are named {0}")]
    Duplicate(ModuleName),
    /// A module failed and its policy allows no (further) restart.
    #[error("module {name} failed: {source}")]
    Module {
        /// The module.
        name: ModuleName,
        /// What it failed with; for a panic, its message.
        #[source]
        source: BoxError,
    },
    /// Modules were still running when the time for shutdown was over; they were aborted.
    #[error("modules {modules:?} still ran {grace:?} after shutdown was requested and were aborted")]
    Stuck {
        /// The modules that were aborted.
        modules: Vec<ModuleName>,
        /// The time they had.
        grace: Duration,
    },
}

type Factory = Box<dyn FnMut() -> Box<dyn Module> + Send>;

enum Part {
    Once(Box<dyn Module>),
    Supervised(Restart, Box<dyn Module>, Factory),
}

impl Part {
    fn module(&self) -> &dyn Module {
        match self {
            Self::Once(module) | Self::Supervised(_, module, _) => module.as_ref(),
        }
    }
}

/// Collects modules; see [`Kernel::builder`].
#[derive(Default)]
pub struct KernelBuilder {
    parts: Vec<Part>,
    grace: Option<Duration>,
    clock: Option<Clock>,
}

impl fmt::Debug for KernelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.module().name())).finish()
    }
}

impl KernelBuilder {
    /// Adds a module whose failure ends the whole.
    #[must_use]
    pub fn module(self, module: impl Module) -> Self {
        self.boxed(Box::new(module))
    }

    /// Adds a module known only at run time; its failure ends the whole.
    #[must_use]
    pub fn boxed(mut self, module: Box<dyn Module>) -> Self {
        self.parts.push(Part::Once(module));
        self
    }

    /// Adds a module that is made anew when it fails or panics.
    #[must_use]
    pub fn supervised<M: Module>(
        mut self,
        policy: Restart,
        mut make: impl FnMut() -> M + Send + 'static,
    ) -> Self {
        let first = Box::new(make());
        self.parts.push(Part::Supervised(policy, first, Box::new(move || Box::new(make()))));
        self
    }

    /// How long modules may take to end (30 s when not said).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// The time of day modules go by ([`Bus::clock`]); the machine's when not said.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Freezes the bus; fails when two modules share a name.
    pub fn build(self) -> Result<Kernel, KernelError> {
        let mut seen = HashSet::new();
        for part in &self.parts {
            let name = part.module().name();
            if !seen.insert(name.clone()) {
                return Err(KernelError::Duplicate(name));
            }
        }
        let (bus, mut inboxes) = Bus::freeze(self.parts.iter().map(|part| {
            let module = part.module();
            (module.name(), module.group(), module.inbox_depth())
        }));
        let bus = bus.with_clock(self.clock.unwrap_or_default());
        let parts = self.parts.into_iter().filter_map(|part| {
            let name = part.module().name();
            let inbox = inboxes.remove(&name)?;
            Some((name, part, inbox))
        });
        Ok(Kernel { parts: parts.collect(), bus, grace: self.grace.unwrap_or(Duration::from_secs(30)) })
    }
}

/// Modules ready to run, with their bus.
pub struct Kernel {
    bus: Bus,
    parts: Vec<(ModuleName, Part, Inbox)>,
    grace: Duration,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|(name, ..)| name)).finish()
    }
}

impl Kernel {
    /// Starts a list of modules.
    pub fn builder() -> KernelBuilder {
        KernelBuilder::default()
    }

    /// The bus, for code outside of modules.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// Runs all modules until `shutdown` completes, a module fails for good, or all have ended. Then asks the rest
    /// to end and waits for them as long as the grace allows.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        let root = Shutdown::new();
        let mut running: HashSet<ModuleName> = self.parts.iter().map(|(name, ..)| name.clone()).collect();
        let mut set = JoinSet::new();
        for (name, part, inbox) in self.parts {
            let ctx = ModuleContext { bus: self.bus.clone(), inbox, shutdown: root.child() };
            set.spawn(async move {
                let ended = keep(&name, part, ctx).await;
                (name, ended)
            });
        }
        drop(self.bus);
        tokio::pin!(shutdown);
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                ended = set.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok((name, Ok(())))) => { running.remove(&name); }
                    Some(Ok((name, Err(source)))) => {
                        running.remove(&name);
                        outcome = Err(KernelError::Module { name, source });
                        break;
                    }
                    Some(Err(_)) => break,
                },
            }
        }
        root.request();
        let drained = drain(set, running, self.grace).await;
        outcome.and(drained)
    }
}

/// Waits for the rest; says which modules had to be aborted.
async fn drain(
    mut set: JoinSet<(ModuleName, Result<(), BoxError>)>,
    mut running: HashSet<ModuleName>,
    grace: Duration,
) -> Result<(), KernelError> {
    let all = async {
        while let Some(ended) = set.join_next().await {
            if let Ok((name, result)) = ended {
                if let Err(error) = result {
                    tracing::warn!(module = %name, error = %error, "module failed during shutdown");
                }
                running.remove(&name);
            }
        }
    };
    if tokio::time::timeout(grace, all).await.is_ok() {
        return Ok(());
    }
    set.shutdown().await;
    let mut modules: Vec<_> = running.into_iter().collect();
    modules.sort();
    Err(KernelError::Stuck { modules, grace })
}

/// Runs one module, restarting it as its policy says.
async fn keep(name: &ModuleName, part: Part, mut ctx: ModuleContext) -> Result<(), BoxError> {
    let (policy, mut module, mut make) = match part {
        Part::Once(mut module) => return once(&mut *module, &mut ctx).await,
        Part::Supervised(policy, module, make) => (policy, module, make),
    };
    let (mut pause, mut restarts) = (policy.first, 0);
    loop {
        let Err(error) = once(&mut *module, &mut ctx).await else { return Ok(()) };
        if policy.limit == Some(restarts) || ctx.shutdown.is_requested() {
            return Err(error);
        }
        restarts += 1;
        tracing::error!(module = %name, error = %error, restarts, pause_ms = pause.as_millis() as u64, "module failed, restarting");
        tokio::select! {
            () = ctx.shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.mul_f64(policy.factor).min(policy.cap);
        module = make();
    }
}

async fn once(module: &mut dyn Module, ctx: &mut ModuleContext) -> Result<(), BoxError> {
    let ended = AssertUnwindSafe(module.start(ctx)).catch_unwind().await;
    let cleaned = AssertUnwindSafe(module.cleanup()).catch_unwind().await;
    match (ended, cleaned) {
        (Ok(result), Ok(())) => result,
        (Err(panic), _) | (_, Err(panic)) => Err(format!("panicked: {}", panic_text(&*panic)).into()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    type Act = Arc<dyn Fn(u32) -> Result<bool, BoxError> + Send + Sync>;

    /// Acts on its n-th start; `true` means work until shutdown.
    #[derive(Clone)]
    struct Actor {
        name: &'static str,
        starts: Arc<AtomicU32>,
        cleanups: Arc<AtomicU32>,
        act: Act,
        deaf: bool,
    }

    impl Actor {
        fn new(
            name: &'static str,
            act: impl Fn(u32) -> Result<bool, BoxError> + Send + Sync + 'static,
        ) -> Self {
            Self { name, starts: Arc::default(), cleanups: Arc::default(), act: Arc::new(act), deaf: false }
        }
    }

    #[async_trait]
    impl Module for Actor {
        fn name(&self) -> ModuleName {
            ModuleName::of(self.name)
        }
        fn group(&self) -> Group {
            Group::USER
        }
        async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
            if (self.act)(self.starts.fetch_add(1, Ordering::SeqCst))? {
                if self.deaf {
                    std::future::pending::<()>().await;
                }
                ctx.shutdown.requested().await;
            }
            Ok(())
        }
        async fn cleanup(&mut self) {
            self.cleanups.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn modules_end_and_clean_up_when_shutdown_is_requested() {
        let actor = Actor::new("a", |_| Ok(true));
        let kernel = Kernel::builder().module(actor.clone()).build().unwrap();
        kernel.run(async {}).await.unwrap();
        assert_eq!(actor.cleanups.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_contained_and_the_module_is_restarted_by_policy() {
        let actor = Actor::new("a", |n| if n < 3 { panic!("boom {n}") } else { Ok(false) });
        let make = actor.clone();
        let kernel = Kernel::builder().supervised(Restart::default(), move || make.clone()).build().unwrap();
        kernel.run(std::future::pending()).await.unwrap();
        assert_eq!(actor.starts.load(Ordering::SeqCst), 4);
        assert_eq!(actor.cleanups.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_that_keeps_failing_ends_the_whole_and_is_named() {
        let policy = Restart { limit: Some(2), ..Restart::default() };
        let actor = Actor::new("bad", |_| Err("no disk".into()));
        let make = actor.clone();
        let bystander = Actor::new("good", |_| Ok(true));
        let kernel = Kernel::builder()
            .supervised(policy, move || make.clone())
            .module(bystander.clone())
            .build()
            .unwrap();
        let error = kernel.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "module bad failed: no disk");
        assert_eq!(actor.starts.load(Ordering::SeqCst), 3);
        assert_eq!(bystander.cleanups.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_that_ignores_shutdown_is_aborted_at_the_deadline_and_named() {
        let deaf = Actor { deaf: true, ..Actor::new("deaf", |_| Ok(true)) };
        let kernel = Kernel::builder().module(deaf).grace(Duration::from_secs(5)).build().unwrap();
        let error = kernel.run(tokio::time::sleep(Duration::from_millis(1))).await.unwrap_err();
        assert!(matches!(&error, KernelError::Stuck { modules, .. } if modules == &[ModuleName::of("deaf")]));
    }

    #[test]
    fn two_modules_of_one_name_are_refused() {
        let twice =
            Kernel::builder().module(Actor::new("a", |_| Ok(true))).module(Actor::new("a", |_| Ok(true)));
        assert!(matches!(twice.build(), Err(KernelError::Duplicate(name)) if name == "a"));
    }

    #[tokio::test]
    async fn a_panic_in_a_module_without_policy_is_an_error_with_its_message() {
        let kernel = Kernel::builder().module(Actor::new("a", |_| panic!("boom"))).build().unwrap();
        let error = kernel.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "module a failed: panicked: boom");
    }
}
