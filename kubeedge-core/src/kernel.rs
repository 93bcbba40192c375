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
//!     async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
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

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    bus::{Bus, Inbox},
    clock::Clock,
    failure::{BoxError, chain},
    name::{Group, ModuleName},
    routes::{RouteError, Routes, RoutingTable},
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
#[non_exhaustive]
pub struct ModuleContext {
    /// The way to other modules.
    pub bus: Bus,
    /// The module's own mailbox. It survives a restart: messages that arrive meanwhile wait in it.
    pub inbox: Inbox,
    /// When to end.
    pub shutdown: Shutdown,
    /// The time of day that all modules go by.
    pub clock: Clock,
}

impl ModuleContext {
    /// A context of one's own, for tests of a single module; it goes by the clock of the machine.
    pub fn new(bus: Bus, inbox: Inbox, shutdown: Shutdown) -> Self {
        Self { bus, inbox, shutdown, clock: Clock::wall() }
    }

    /// Goes by this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
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

    /// What it takes beside what is sent to it by name: groups of its own across the link, MQTT topics,
    /// readings. Asked once, when the kernel is built.
    fn routes(&self) -> Routes {
        Routes::new()
    }

    /// Works until the shutdown is requested, then returns `Ok`. Returning earlier with `Ok` means the work
    /// is done; an error or a panic is handled as the module's [`Restart`] policy says, a [`Fatal`] error
    /// ends the whole.
    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError>;

    /// Called once after `run` has returned or panicked; must be quick and must not fail.
    async fn cleanup(&mut self) {}
}

/// A module that is known only at run time.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: Module + ?Sized> Module for Box<M> {
    fn name(&self) -> ModuleName {
        (**self).name()
    }

    fn group(&self) -> Group {
        (**self).group()
    }

    fn inbox_depth(&self) -> usize {
        (**self).inbox_depth()
    }

    fn routes(&self) -> Routes {
        (**self).routes()
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        (**self).run(ctx).await
    }

    async fn cleanup(&mut self) {
        (**self).cleanup().await;
    }
}

/// An error of a module that another start would not mend, such as a port that is taken: it ends the whole,
/// whatever the module's [`Restart`] policy says.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Fatal(BoxError);

impl Fatal {
    /// For this reason.
    pub fn new(why: impl Into<BoxError>) -> Self {
        Self(why.into())
    }
}

/// How often and how soon a failed module is started anew. A module that has run for longer than the longest
/// pause starts over: its next failure counts as the first.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Restart {
    /// The pause before the first restart, 1 s by default. It doubles with each failure. Every pause is
    /// shortened at random by up to half of it, so that what failed together does not start together.
    pub first: Duration,
    /// The longest pause, 60 s by default.
    pub cap: Duration,
    /// How many restarts in a row before the whole gives up; `None`, the default, for no limit.
    pub limit: Option<u32>,
}

impl Default for Restart {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), cap: Duration::from_secs(60), limit: None }
    }
}

impl Restart {
    /// Pauses from `first` up to `cap`, without a limit.
    pub fn pausing(first: Duration, cap: Duration) -> Self {
        Self { first, cap, limit: None }
    }

    /// Gives up after so many restarts in a row.
    #[must_use]
    pub fn at_most(mut self, restarts: u32) -> Self {
        self.limit = Some(restarts);
        self
    }
}

/// The failures of one module in a row.
struct Failures {
    policy: Restart,
    backoff: Backoff,
    restarts: u32,
}

impl Failures {
    fn new(policy: Restart, seed: u64) -> Self {
        Self { policy, backoff: Backoff::new(policy.first, policy.cap, seed), restarts: 0 }
    }

    /// The pause after a failure that ended a run of this length; `None` when the policy allows no further
    /// restart.
    fn pause_after(&mut self, run: Duration) -> Option<Duration> {
        if run > self.policy.cap {
            self.backoff.reset();
            self.restarts = 0;
        }
        if self.policy.limit == Some(self.restarts) {
            return None;
        }
        self.restarts = self.restarts.saturating_add(1);
        Some(self.backoff.next_pause())
    }
}

/// Why the kernel ended other than by an orderly shutdown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Two modules have the same name.
    #[error("two modules are named {0}")]
    Duplicate(ModuleName),
    /// Two modules want the same messages, or one wants what is KubeEdge's own.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// A module failed and its policy allows no (further) restart.
    #[error("module {name} failed: {source}")]
    Module {
        /// The module.
        name: ModuleName,
        /// What it failed with; for a panic, its message.
        #[source]
        source: BoxError,
    },
    /// The task of a module ended without a result: it panicked where no panic is contained, such as while
    /// the module was dropped or made anew.
    #[error("module {name} was lost: {source}")]
    Lost {
        /// The module.
        name: ModuleName,
        /// How its task ended.
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
    seed: u64,
}

impl fmt::Debug for KernelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.module().name())).finish()
    }
}

impl KernelBuilder {
    /// Adds a module whose failure ends the whole.
    #[must_use]
    pub fn module(mut self, module: impl Module) -> Self {
        self.parts.push(Part::Once(Box::new(module)));
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

    /// The time of day modules go by ([`ModuleContext::clock`]); the machine's when not said.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where the random part of the pauses before restarts starts (0 when not said). Each module has numbers
    /// of its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the bus, whose mailboxes are settled from then on; fails when two modules share a name.
    pub fn build(self) -> Result<Kernel, KernelError> {
        let mut seen = HashSet::new();
        for part in &self.parts {
            let name = part.module().name();
            if !seen.insert(name.clone()) {
                return Err(KernelError::Duplicate(name));
            }
        }
        let wanted = self.parts.iter().map(|part| (part.module().name(), part.module().routes()));
        let routes = RoutingTable::new(wanted)?;
        let (bus, mut inboxes) = Bus::new(self.parts.iter().map(|part| {
            let module = part.module();
            (module.name(), module.group(), module.inbox_depth())
        }));
        let bus = bus.with_routes(routes);
        let parts = self.parts.into_iter().filter_map(|part| {
            let name = part.module().name();
            let inbox = inboxes.remove(&name)?;
            Some((name, part, inbox))
        });
        let grace = self.grace.unwrap_or(Duration::from_secs(30));
        let clock = self.clock.unwrap_or_default();
        Ok(Kernel { parts: parts.collect(), bus, grace, clock, seed: self.seed })
    }
}

/// Modules ready to run, with their bus.
pub struct Kernel {
    bus: Bus,
    parts: Vec<(ModuleName, Part, Inbox)>,
    grace: Duration,
    clock: Clock,
    seed: u64,
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

    /// Runs all modules until `shutdown` completes, a module fails for good, or all have ended. Then asks the
    /// rest to end and waits for them as long as the grace allows.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), KernelError> {
        let root = Shutdown::new();
        let mut running = Running::default();
        for (name, part, inbox) in self.parts {
            let ctx =
                ModuleContext::new(self.bus.clone(), inbox, root.child()).with_clock(self.clock.clone());
            let (kept, seed) = (name.clone(), seed_of(self.seed, &name));
            running.spawn(name, async move { keep(&kept, part, ctx, seed).await });
        }
        drop(self.bus);
        tokio::pin!(shutdown);
        let outcome = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                ended = running.next() => match ended {
                    None => return Ok(()),
                    Some(Ok(())) => {}
                    Some(Err(error)) => break Err(error),
                },
            }
        };
        root.request();
        let drained = running.drain(self.grace).await;
        outcome.and(drained)
    }
}

/// Where the random numbers of one module start.
fn seed_of(seed: u64, name: &ModuleName) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    hasher.finish()
}

/// The tasks of the modules that have not ended yet.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, ModuleName>,
}

impl Running {
    fn spawn(
        &mut self,
        name: ModuleName,
        module: impl Future<Output = Result<(), BoxError>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(module);
        self.names.insert(task.id(), name);
    }

    /// How the next module ended; `None` when all have. Cancel-safe.
    async fn next(&mut self) -> Option<Result<(), KernelError>> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        // Every task has a name.
        let name = self.names.remove(&id).unwrap_or_else(|| ModuleName::of("?"));
        Some(match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(KernelError::Module { name, source }),
            Err(error) => Err(KernelError::Lost { name, source: error.into() }),
        })
    }

    /// Waits for the rest; says which module was lost, or which had to be aborted.
    async fn drain(mut self, grace: Duration) -> Result<(), KernelError> {
        let mut lost = Ok(());
        let all = async {
            while let Some(ended) = self.next().await {
                match ended {
                    Err(error @ KernelError::Lost { .. }) if lost.is_ok() => lost = Err(error),
                    Err(error) => tracing::warn!(error = %chain(&error), "module failed during shutdown"),
                    Ok(()) => {}
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return lost;
        }
        self.tasks.shutdown().await;
        let mut modules: Vec<_> = self.names.into_values().collect();
        modules.sort();
        lost.and(Err(KernelError::Stuck { modules, grace }))
    }
}

/// Runs one module, restarting it as its policy says.
async fn keep(name: &ModuleName, part: Part, mut ctx: ModuleContext, seed: u64) -> Result<(), BoxError> {
    let (policy, mut module, mut make) = match part {
        Part::Once(mut module) => return once(&mut *module, &mut ctx).await,
        Part::Supervised(policy, module, make) => (policy, module, make),
    };
    let mut failures = Failures::new(policy, seed);
    loop {
        let started = Instant::now();
        let Err(error) = once(&mut *module, &mut ctx).await else { return Ok(()) };
        if error.is::<Fatal>() || ctx.shutdown.is_requested() {
            return Err(error);
        }
        let Some(pause) = failures.pause_after(started.elapsed()) else { return Err(error) };
        let (restarts, pause_ms) = (failures.restarts, pause.as_millis() as u64);
        tracing::error!(module = %name, error = %error, restarts, pause_ms, "module failed, restarting");
        tokio::select! {
            () = ctx.shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        module = make();
    }
}

async fn once(module: &mut dyn Module, ctx: &mut ModuleContext) -> Result<(), BoxError> {
    let ended = AssertUnwindSafe(module.run(ctx)).catch_unwind().await;
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
        /// How long it works before it acts.
        works: Duration,
        deaf: bool,
    }

    impl Actor {
        fn new(
            name: &'static str,
            act: impl Fn(u32) -> Result<bool, BoxError> + Send + Sync + 'static,
        ) -> Self {
            Self {
                name,
                starts: Arc::default(),
                cleanups: Arc::default(),
                act: Arc::new(act),
                works: Duration::ZERO,
                deaf: false,
            }
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
        async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
            tokio::time::sleep(self.works).await;
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
        let policy = Restart::default().at_most(2);
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
    async fn restarts_are_forgotten_after_a_long_good_run() {
        let day = Duration::from_secs(24 * 60 * 60);
        let actor = Actor {
            works: day,
            ..Actor::new("daily", |n| if n < 10 { Err("once a day".into()) } else { Ok(false) })
        };
        let make = actor.clone();
        let policy = Restart::default().at_most(2);
        let kernel = Kernel::builder().supervised(policy, move || make.clone()).build().unwrap();
        let began = Instant::now();
        kernel.run(std::future::pending()).await.unwrap();
        assert_eq!(actor.starts.load(Ordering::SeqCst), 11);
        let pauses = began.elapsed() - 11 * day;
        assert!(pauses <= 10 * policy.first, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_before_restarts_grow_with_jitter_of_the_seed() {
        async fn outage(seed: u64) -> Duration {
            let actor = Actor::new("a", |n| if n < 5 { Err("not yet".into()) } else { Ok(false) });
            let kernel = Kernel::builder().seed(seed).supervised(Restart::default(), move || actor.clone());
            let began = Instant::now();
            kernel.build().unwrap().run(std::future::pending()).await.unwrap();
            began.elapsed()
        }
        let (one, again, other) = (outage(1).await, outage(1).await, outage(2).await);
        assert_eq!(one, again);
        assert_ne!(one, other);
        let whole = Duration::from_secs(1 + 2 + 4 + 8 + 16);
        assert!(one >= whole / 2 && one <= whole + Duration::from_millis(10), "{one:?}");
    }

    #[tokio::test]
    async fn a_fatal_error_ends_the_whole_without_a_restart() {
        let actor = Actor::new("deaf", |_| Err(Fatal::new("the port is taken").into()));
        let make = actor.clone();
        let kernel = Kernel::builder().supervised(Restart::default(), move || make.clone()).build().unwrap();
        let error = kernel.run(std::future::pending()).await.unwrap_err();
        assert_eq!(chain(&error), "module deaf failed: the port is taken");
        assert_eq!(actor.starts.load(Ordering::SeqCst), 1);
    }

    /// Panics when it is dropped; `true` means work until shutdown.
    struct Brittle(bool);

    impl Drop for Brittle {
        fn drop(&mut self) {
            panic!("brittle");
        }
    }

    #[async_trait]
    impl Module for Brittle {
        fn name(&self) -> ModuleName {
            ModuleName::of("brittle")
        }
        fn group(&self) -> Group {
            Group::USER
        }
        async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
            if self.0 {
                ctx.shutdown.requested().await;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_lost_module_task_ends_the_whole_with_an_error() {
        let bystander = Actor::new("good", |_| Ok(true));
        let kernel = Kernel::builder().module(Brittle(false)).module(bystander.clone()).build().unwrap();
        let error = kernel.run(std::future::pending()).await.unwrap_err();
        assert!(matches!(&error, KernelError::Lost { name, .. } if *name == "brittle"), "{error}");
        assert!(error.to_string().contains("brittle"), "{error}");
        assert_eq!(bystander.cleanups.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_module_task_lost_at_shutdown_is_an_error() {
        let kernel = Kernel::builder().module(Brittle(true)).build().unwrap();
        let error = kernel.run(async {}).await.unwrap_err();
        assert!(matches!(&error, KernelError::Lost { name, .. } if *name == "brittle"), "{error}");
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

    #[test]
    fn two_modules_that_take_the_same_group_are_refused() {
        struct Taker(&'static str);

        #[async_trait]
        impl Module for Taker {
            fn name(&self) -> ModuleName {
                ModuleName::of(self.0)
            }
            fn group(&self) -> Group {
                Group::USER
            }
            fn routes(&self) -> Routes {
                Routes::new().group(Group::of("acme"))
            }
            async fn run(&mut self, _: &mut ModuleContext) -> Result<(), BoxError> {
                Ok(())
            }
        }

        let kernel = Kernel::builder().module(Taker("a")).build().unwrap();
        let (acme, a) = (Group::of("acme"), ModuleName::of("a"));
        assert_eq!(kernel.bus().routes().taker(&acme, "x"), Some(&a));
        let twice = Kernel::builder().module(Taker("a")).module(Taker("b")).build().unwrap_err();
        assert_eq!(twice.to_string(), "modules a and b both want group acme");
    }

    #[tokio::test]
    async fn a_panic_in_a_module_without_policy_is_an_error_with_its_message() {
        let kernel = Kernel::builder().module(Actor::new("a", |_| panic!("boom"))).build().unwrap();
        let error = kernel.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "module a failed: panicked: boom");
    }
}
