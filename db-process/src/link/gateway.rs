//! The link to the gateway: registers this process, and then answers what the gateway asks of its copies.
//!
//! One task owns the connection and does everything on it in turn, so whoever gets an [`Alive`] knows that
//! work gets done. Reads are answered on the spot; writes go to the copy's worker, and their answers come
//! back through a channel. So do those of questions about a whole copy, which take too long for the spot and
//! are answered on threads of their own. When the connection is over, whatever was under way on it is
//! forgotten, and the whole begins again with a registration: the gateway sends again what it has no answer
//! for. Writes that the worker has still come first: they are among what a copy says that it has when it
//! registers, so that no other copy leads without them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use process::Secret;
use protocol::UserId;
use protocol::message::Message;
use protocol::message::link::{
    Alive, Applied, Beat, Compared, CopyReport, Expected, Found, Leaving, MergeBatch, Merged, ReadAnswers,
    ReadBatch, Refusal, Refused, Register, Registered, Released, ReplicationAddress, Ring, RingNotice, Role,
    WriteAnswers, WriteBatch,
};
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, CountQuery, DigestAnswer, DigestQuery, PageAnswer, PageQuery, Renew,
    TombstoneAnswer, TombstoneQuery,
};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use url::Url;

use super::client::{Connection, Frame, Lost};
use super::retry::{Seldom, Waits};
use crate::node::{Node, NoticeError, PerRole};
use crate::store::StoreError;
use crate::worker::{CopyHandle, CopyState};

/// How long the gateway may take to answer a registration.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(2);

/// A gateway that says nothing for that long is lost; it sends a [`Beat`] several times a second.
const SILENCE: Duration = Duration::from_secs(2);

/// A link that held for that long was a good one: the next attempt comes quickly again.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// Who waits longer than this for what it was sent earlier says so.
const SLOW_DISK: Duration = Duration::from_secs(1);

/// So many questions about a whole copy are answered at once, and as many scans. The others wait: more would
/// take the processors from reads and writes, and finish no sooner.
const QUESTIONS: usize = 2;

/// What the link needs.
pub struct GatewayLink {
    /// The gateway.
    pub url: Url,
    /// What it asks for at the door.
    pub secret: Option<Secret>,
    /// Where this process can be followed.
    pub replication: ReplicationAddress,
    /// This process.
    pub node: Arc<Node>,
}

/// Why there will be no further attempt.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The gateway does not want this process as it is, now or later.
    #[error("the gateway at {url} refuses {name}: {reason}")]
    Refused {
        /// The gateway.
        url: String,
        /// This process.
        name: String,
        /// What somebody has to change.
        reason: String,
    },
    /// A copy cannot be read.
    #[error("the {} copy failed: {error}", role.as_str())]
    Copy {
        /// Which one.
        role: Role,
        /// How.
        error: StoreError,
    },
    /// The ring could not be kept, or not by this process.
    #[error(transparent)]
    Notice(NoticeError),
}

/// Why a connection was given up.
#[derive(Debug)]
enum Over {
    Lost(Lost),
    Refused(Refusal),
    /// The gateway told what cannot be true: another one may know better.
    Contradiction(NoticeError),
    /// A worker has ended; who ended it knows why.
    Stopped,
    /// A copy is not complete any more: the process registers anew, with what it has.
    RolledBack,
    /// The gateway needs this process no more.
    Released,
    Final(LinkError),
}

impl From<Lost> for Over {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl GatewayLink {
    /// Keeps this process registered until `shutdown`. When it is to `leave`, it says so to the gateway,
    /// serves on until that lets it go, and returns.
    ///
    /// # Errors
    /// When further attempts are pointless.
    pub async fn run(self, leave: CancellationToken, shutdown: CancellationToken) -> Result<(), LinkError> {
        let (mut waits, mut seldom) = (Waits::new(), Seldom::default());
        let writes = TaskTracker::new();
        writes.close();
        loop {
            let mut registered = None;
            let session = async {
                let Err(over) = self.session(&mut registered, &writes, &leave).await;
                over
            };
            let over = tokio::select! {
                () = shutdown.cancelled() => None,
                over = session => Some(over),
            };
            self.node.set_registered(false);
            match over {
                None | Some(Over::Stopped | Over::Released) => return Ok(()),
                Some(Over::Final(error)) => return Err(error),
                // There is nobody to tell.
                Some(_) if leave.is_cancelled() => return Ok(()),
                Some(over) => self.report(&over, registered.is_some(), &mut seldom)?,
            }
            if registered.is_some_and(|since: Instant| since.elapsed() >= STABLE_AFTER) {
                waits = Waits::new();
            }
            tokio::select! {
                () = leave.cancelled() => return Ok(()),
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(waits.next_wait()) => {}
            }
        }
    }

    /// Waits for the writes of earlier connections. It takes as long as the disk does.
    async fn until_written(&self, writes: &TaskTracker) {
        if timeout(SLOW_DISK, writes.wait()).await.is_err() {
            let name = self.node.name().as_str();
            warn!(name, "its disk hangs: it registers when what it was sent before is there");
            writes.wait().await;
            info!(name, "its disk goes on");
        }
    }

    /// Says why a connection was given up. Returns an error where another attempt is pointless.
    fn report(&self, over: &Over, was_registered: bool, seldom: &mut Seldom) -> Result<(), LinkError> {
        let (name, url) = (self.node.name().as_str(), self.url.as_str());
        if was_registered {
            seldom.forget();
        }
        let news = |seldom: &mut Seldom, text: &str| seldom.is_news(text, Instant::now().into_std());
        match over {
            Over::Lost(lost) if was_registered => warn!(name, reason = %lost, "gateway lost"),
            Over::Lost(lost) => {
                if news(seldom, &lost.to_string()) {
                    warn!(name, reason = %lost, "no gateway yet; trying on");
                }
            }
            Over::Refused(reason) => {
                let (text, incarnation) = (self.explain(reason), self.node.incarnation());
                if reason.is_final() {
                    error!(name, %incarnation, url, reason = text, "refused by the gateway");
                    return Err(LinkError::Refused {
                        url: url.to_owned(),
                        name: name.to_owned(),
                        reason: text,
                    });
                }
                if news(seldom, &text) {
                    warn!(name, %incarnation, url, reason = text, "refused by the gateway; trying on");
                }
            }
            Over::Contradiction(error) => {
                if news(seldom, &error.to_string()) {
                    warn!(name, url, reason = %error, "the gateway contradicts what is known; trying on");
                }
            }
            Over::Stopped | Over::RolledBack | Over::Released | Over::Final(_) => {}
        }
        Ok(())
    }

    /// A refusal, for a person.
    fn explain(&self, refusal: &Refusal) -> String {
        let name = self.node.name();
        match refusal {
            Refusal::Revision { gateway } => {
                format!(
                    "it speaks revision {gateway}, {name} speaks {}: start the same version of both",
                    protocol::message::REVISION
                )
            }
            Refusal::NameTaken { holder, incarnation } => format!(
                "another process is registered as {name}: it came from {holder} and its data are {incarnation}, this one's \
                 are {}",
                self.node.incarnation()
            ),
            Refusal::OutsideRing { size } => {
                format!("the ring has {size} places, and {name} would have place {}", name.place())
            }
            Refusal::AnotherRing { serving } => {
                let kept = self.node.ring().map_or_else(|| "none".to_owned(), |ring| ring.id.to_string());
                format!("it serves ring {serving}, the data of {name} belong to ring {kept}")
            }
            Refusal::Void => format!("it took {name} for lost"),
        }
    }

    /// Connects, registers and serves. `registered` tells since when.
    async fn session(
        &self,
        registered: &mut Option<Instant>,
        writes: &TaskTracker,
        leave: &CancellationToken,
    ) -> Result<Infallible, Over> {
        // Watched from before the registration, so that no change falls between.
        let states = PerRole::both(|role| self.node.copy(role).state());
        let entering = self.enter(writes);
        let (connection, registration, size) = tokio::select! {
            entered = entering => entered?,
            // Nothing depends on a process that is not registered.
            () = leave.cancelled() => return Err(Over::Released),
        };
        *registered = Some(Instant::now());
        self.node.set_registered(true);
        info!(name = %self.node.name(), incarnation = %self.node.incarnation(), gateway = %self.url, size, "registered");
        let (answers, answered) = unbounded_channel();
        let serving = Serving {
            node: &self.node,
            connection,
            states,
            told: PerRole { primary: registration.copies.primary, replica: registration.copies.replica },
            told_kept: (registration.ring, registration.view.epoch),
            answers,
            writes,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            scans: Arc::new(Semaphore::new(1)),
            notice: None,
            seldom: Seldom::default(),
        };
        serving.serve(answered, leave).await
    }

    /// Connects and registers, when the writes of earlier connections are on disk. Returns what the gateway
    /// knows now, and how large a ring it expects.
    async fn enter(&self, writes: &TaskTracker) -> Result<(Connection, Register, u16), Over> {
        self.until_written(writes).await;
        let mut connection = Connection::open(&self.url, self.secret.as_ref()).await?;
        let registration = self.node.registration(self.replication.clone());
        connection.send(&registration).await?;
        let answer = timeout(REGISTRATION_DEADLINE, registration_answer(&mut connection)).await;
        let Registered { size } = answer.unwrap_or(Err(Over::Lost(Lost::Silent(REGISTRATION_DEADLINE))))?;
        Ok((connection, registration, size))
    }
}

async fn registration_answer(connection: &mut Connection) -> Result<Registered, Over> {
    loop {
        let frame = connection.next(SILENCE).await?;
        match frame.event.as_str() {
            Registered::EVENT => {
                if let Ok(registered) = Registered::decode(&frame.text) {
                    return Ok(registered);
                }
            }
            Refused::EVENT => {
                if let Ok(Refused { reason }) = Refused::decode(&frame.text) {
                    return Err(Over::Refused(reason));
                }
            }
            // Beats may come before, and say nothing about the registration.
            _ => {}
        }
    }
}

/// What a worker, or another thread, has finished.
#[derive(Debug)]
enum Done {
    Written(WriteAnswers),
    Merged(Merged),
    Page(PageAnswer),
    Changes(ChangesAnswer),
    Tombstones(TombstoneAnswer),
    Digest(DigestAnswer),
}

/// A registered connection.
struct Serving<'a> {
    node: &'a Arc<Node>,
    connection: Connection,
    states: PerRole<watch::Receiver<CopyState>>,
    /// What the gateway knows of the copies.
    told: PerRole<CopyReport>,
    /// The ring, and the epoch of the view, of which it knows that they are kept.
    told_kept: (Option<Ring>, u64),
    answers: UnboundedSender<Done>,
    /// Those that the workers have.
    writes: &'a TaskTracker,
    /// The turns of questions about a whole copy.
    questions: Arc<Semaphore>,
    /// The turn of a scan, which takes so long that nothing else should wait for it.
    scans: Arc<Semaphore>,
    /// The newest notice, until it is taken.
    notice: Option<RingNotice>,
    seldom: Seldom,
}

impl Serving<'_> {
    async fn serve(
        mut self,
        mut answered: UnboundedReceiver<Done>,
        leave: &CancellationToken,
    ) -> Result<Infallible, Over> {
        let mut leaving = false;
        let mut following = self.node.following();
        // The gateway knows nothing of it yet.
        following.mark_changed();
        // Keeping a view takes as long as the disk does. Meanwhile work goes on, and beats are answered.
        let mut taking: Option<JoinHandle<Result<(), NoticeError>>> = None;
        loop {
            if taking.is_none()
                && let Some(notice) = self.notice.take()
            {
                let node = Arc::clone(self.node);
                taking = Some(tokio::spawn(async move { node.take(notice).await }));
            }
            tokio::select! {
                taken = async { taking.as_mut().expect("checked by the condition").await }, if taking.is_some() => {
                    taking = None;
                    self.taken(taken.expect("taking a notice does not panic")).await?;
                }
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    self.connection.send(&Leaving {}).await?;
                }
                frame = self.connection.next(SILENCE) => self.handle(frame?).await?,
                Some(done) = answered.recv() => match done {
                    Done::Written(answers) => self.connection.send(&answers).await?,
                    Done::Merged(merged) => self.connection.send(&merged).await?,
                    Done::Page(page) => self.connection.send(&page).await?,
                    Done::Changes(changes) => self.connection.send(&changes).await?,
                    Done::Tombstones(tombstones) => self.connection.send(&tombstones).await?,
                    Done::Digest(digest) => self.connection.send(&digest).await?,
                },
                Ok(()) = following.changed() => {
                    let now = *following.borrow_and_update();
                    self.connection.send(&now).await?;
                }
                changed = self.states.primary.changed() => self.tell(Role::Primary, changed.is_ok()).await?,
                changed = self.states.replica.changed() => self.tell(Role::Replica, changed.is_ok()).await?,
            }
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Over> {
        match frame.event.as_str() {
            ReadBatch::EVENT => match self.decode(&frame) {
                Some(batch) => self.read(batch).await,
                None => Ok(()),
            },
            WriteBatch::EVENT => {
                if let Some(WriteBatch { batch, role, writes }) = self.decode(&frame) {
                    let (answers, under_way) = (self.answers.clone(), self.writes.token());
                    // The receiver is gone where the connection was lost meanwhile: the gateway will ask
                    // again.
                    self.node.copy(role).write(writes, move |results, lsn| {
                        let _under_way = under_way;
                        let _ = answers.send(Done::Written(WriteAnswers { batch, role, lsn, results }));
                    });
                }
                Ok(())
            }
            MergeBatch::EVENT => {
                if let Some(MergeBatch { batch, role, changes, other }) = self.decode(&frame) {
                    let answers = self.answers.clone();
                    self.node.copy(role).merge(changes, other, move |lsn| {
                        let _ = answers.send(Done::Merged(Merged { batch, role, lsn }));
                    });
                }
                Ok(())
            }
            PageQuery::EVENT => {
                if let Some(query) = self.decode::<PageQuery>(&frame) {
                    self.ask(query.role, &self.questions, move |copy| copy.page(&query).map(Done::Page));
                }
                Ok(())
            }
            CountQuery::EVENT => match self.decode::<CountQuery>(&frame) {
                Some(query) => {
                    let role = query.role;
                    let counted = self.node.copy(role).count(&query);
                    let answer = counted.map_err(|error| Over::Final(LinkError::Copy { role, error }))?;
                    Ok(self.connection.send(&answer).await?)
                }
                None => Ok(()),
            },
            ChangesQuery::EVENT => {
                if let Some(query) = self.decode::<ChangesQuery>(&frame) {
                    self.ask(query.role, &self.questions, move |copy| {
                        copy.changes(&query).map(Done::Changes)
                    });
                }
                Ok(())
            }
            TombstoneQuery::EVENT => {
                if let Some(query) = self.decode::<TombstoneQuery>(&frame) {
                    self.ask(query.role, &self.questions, move |copy| {
                        copy.tombstones(&query).map(Done::Tombstones)
                    });
                }
                Ok(())
            }
            DigestQuery::EVENT => {
                if let Some(query) = self.decode::<DigestQuery>(&frame) {
                    let turns = if query.scan { &self.scans } else { &self.questions };
                    self.ask(query.role, turns, move |copy| copy.digests(&query).map(Done::Digest));
                }
                Ok(())
            }
            Beat::EVENT => match self.decode(&frame) {
                Some(Beat { beat }) => Ok(self.connection.send(&Alive { beat }).await?),
                None => Ok(()),
            },
            RingNotice::EVENT => match self.decode(&frame) {
                Some(notice) => {
                    // Each states all of it, so only the newest counts.
                    self.notice = Some(notice);
                    Ok(())
                }
                None => Ok(()),
            },
            Expected::EVENT => match self.decode(&frame) {
                Some(expected) => self.compare(expected).await,
                None => Ok(()),
            },
            Renew::EVENT => {
                if let Some(renew) = self.decode(&frame) {
                    self.node.renew(renew);
                }
                Ok(())
            }
            Released::EVENT => Err(Over::Released),
            Refused::EVENT => match self.decode(&frame) {
                Some(Refused { reason }) => Err(Over::Refused(reason)),
                None => Ok(()),
            },
            _ => {
                self.ignore(&frame, "an event that is not known");
                Ok(())
            }
        }
    }

    /// Compares a copy with what is known of its disk. One that has less answers nothing from here on.
    async fn compare(&mut self, Expected { role, flushed, followed }: Expected) -> Result<(), Over> {
        match self.node.copy(role).compare(flushed, followed) {
            Ok(true) => Ok(self.connection.send(&Compared { role }).await?),
            Ok(false) => Err(Over::RolledBack),
            Err(error) => Err(Over::Final(LinkError::Copy { role, error })),
        }
    }

    fn decode<M: Message>(&mut self, frame: &Frame) -> Option<M> {
        let message = M::decode(&frame.text);
        if message.is_err() {
            self.ignore(frame, "a message that cannot be read");
        }
        message.ok()
    }

    fn ignore(&mut self, frame: &Frame, what: &str) {
        if self.seldom.is_time(Instant::now().into_std()) {
            let event: String = frame.event.chars().take(32).collect();
            warn!(?event, bytes = frame.text.len(), what, "ignored something from the gateway");
        }
    }

    /// Has a question answered on another thread, when it is its turn.
    fn ask(
        &self,
        role: Role,
        turns: &Arc<Semaphore>,
        question: impl FnOnce(&CopyHandle) -> Result<Done, StoreError> + Send + 'static,
    ) {
        let (copy, turns, answers) = (self.node.copy(role).clone(), Arc::clone(turns), self.answers.clone());
        tokio::spawn(async move {
            let _turn = turns.acquire().await;
            // Who asked may be gone by now.
            if answers.is_closed() {
                return;
            }
            // Where the copy failed, the trust in it ends, and the process with that.
            if let Ok(Ok(done)) = spawn_blocking(move || question(&copy)).await {
                let _ = answers.send(done);
            }
        });
    }

    async fn read(&mut self, batch: ReadBatch) -> Result<(), Over> {
        let ReadBatch { batch, primary, replica } = batch;
        let mut results = self.look_up(Role::Primary, &primary)?;
        results.extend(self.look_up(Role::Replica, &replica)?);
        Ok(self.connection.send(&ReadAnswers { batch, results }).await?)
    }

    fn look_up(&self, role: Role, ids: &[UserId]) -> Result<Vec<Option<Found>>, Over> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.node.copy(role).read_many(ids);
        found.map_err(|error| Over::Final(LinkError::Copy { role, error }))
    }

    /// Tells the gateway what is kept now, if that is news there. It may have been kept for an earlier
    /// connection, since this one began.
    async fn taken(&mut self, taken: Result<(), NoticeError>) -> Result<(), Over> {
        match taken {
            Ok(()) => {
                let changes = self.node.changes();
                if self.told_kept != (changes.ring, changes.epoch) {
                    self.told_kept = (changes.ring, changes.epoch);
                    self.connection.send(&changes).await?;
                }
                Ok(())
            }
            Err(error @ NoticeError::Contradiction(_)) => Err(Over::Contradiction(error)),
            Err(error @ NoticeError::Identity(_)) => Err(Over::Final(LinkError::Notice(error))),
        }
    }

    /// Tells the gateway what has changed of a copy, if it is something that matters there.
    async fn tell(&mut self, role: Role, works: bool) -> Result<(), Over> {
        if !works {
            return Err(Over::Stopped);
        }
        let now = self.states.get_mut(role).borrow_and_update().report;
        let told = std::mem::replace(self.told.get_mut(role), now);
        if told.complete && !now.complete {
            return Err(Over::RolledBack);
        }
        if (told.complete, told.incarnation) != (now.complete, now.incarnation) {
            info!(copy = role.as_str(), complete = now.complete, "copy changed");
            self.connection.send(&self.node.changes()).await?;
        } else if let Some(position) = now.position.filter(|_| told.position != now.position) {
            self.connection.send(&Applied { role, position }).await?;
        }
        Ok(())
    }
}
