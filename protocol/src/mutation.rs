//! Deliberate bugs, so that a test can show that it would find them. Nothing of this is in a program that is
//! built without the feature `mutations`: there, [`is`] is a constant.

/// Makes the type and the list of all of them.
macro_rules! mutations {
    ($($(#[$doc:meta])* $mutation:ident,)*) => {
        /// One deliberate bug. The place where it is made asks [`is`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[$doc])* $mutation,)*
        }

        impl Mutation {
            /// All of them; the simulation finds each.
            pub const ALL: [Self; [$(Self::$mutation),*].len()] = [$(Self::$mutation),*];
        }
    };
}

mutations! {
    /// A copy is promoted without the writes that it lacks.
    TailNotReplayed,
    /// A copy is promoted although the tail does not cover what it lacks.
    PromoteUncovered,
    /// Answers leave before what they tell is on disk.
    AnswerBeforeSync,
    /// What was in flight to a lost leader is sent again as new operations.
    ResendAsNew,
    /// The position in the other's op-log is written in another batch than the data.
    PositionApart,
    /// The other copy answers reads of users with unreplicated writes.
    ReadUnsettled,
    /// A read tells of a write that was not answered.
    ReadUnanswered,
    /// A copy answers reads when the tail is on its way to it, not when it has it.
    ReadBeforeMerged,
    /// A read that only the leader could answer waits for it, however silent that is.
    WaitForSilent,
    /// The leader changes while the old one still has writes to decide.
    MoveUndrained,
    /// A leader stays leader however slow it is.
    SlowLeads,
    /// A merge takes the older register.
    MergeOlder,
    /// A gateway that starts believes the first view that it hears of.
    BelieveFirstView,
    /// A copy may be filled from one that does not lead.
    FillFromAny,
    /// A copy that returns answers reads before it has what happened meanwhile.
    TargetIgnored,
    /// A copy that led before is not asked for what only it knows.
    ExchangeIgnored,
    /// A copy that hands leadership to one with an empty op-log counts as one that lacks something, until it
    /// follows that.
    HandedUnknown,
    /// A change is published before older ones are settled.
    PublishEarly,
    /// A tombstone is purged although something older may still come.
    PurgeUnexchanged,
    /// A copy keeps what the leader has purged.
    PurgeNotFollowed,
    /// What a record still has is erased from the op-log.
    EraseCurrent,
    /// The op-log is erased although the other copy may not have it.
    EraseUnconfirmed,
    /// A process registers without a look at what is known of its disk.
    RegistrationNotCompared,
    /// A copy follows another without a look at what they know of each other's disks.
    FollowerNotCompared,
    /// A process that starts does not look at what it remembers of its own disk.
    StartNotCompared,
    /// A copy that was rolled back, and is filled or accepted, keeps its incarnation.
    IncarnationKept,
    /// A copy that is known to be rolled back leads and serves on.
    RollbackServes,
    /// A source sends a follower as much as there is.
    WindowIgnored,
    /// A follower reports what it has received as applied.
    ConfirmUnapplied,
    /// A link to the gateway passes the newest notice over for one that came before it.
    StaleNotice,
}

#[cfg(feature = "mutations")]
thread_local! {
    static MADE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is being made on this thread.
#[cfg(feature = "mutations")]
pub fn is(mutation: Mutation) -> bool {
    MADE.get() == Some(mutation)
}

/// No bug is made on purpose.
#[cfg(not(feature = "mutations"))]
pub const fn is(_: Mutation) -> bool {
    false
}

/// Makes a bug on this thread from now on, or none.
#[cfg(feature = "mutations")]
pub fn make(mutation: Option<Mutation>) {
    MADE.set(mutation);
}
