//! One of something for each copy.

use protocol::message::link::Role;

/// One for the primary, one for the replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerRole<T> {
    /// Of the process's own partition.
    pub primary: T,
    /// Of its predecessor's partition.
    pub replica: T,
}

impl<T> PerRole<T> {
    /// Makes both.
    pub fn both(mut make: impl FnMut(Role) -> T) -> Self {
        Self { primary: make(Role::Primary), replica: make(Role::Replica) }
    }

    /// One of them.
    pub fn get(&self, role: Role) -> &T {
        match role {
            Role::Primary => &self.primary,
            Role::Replica => &self.replica,
        }
    }

    /// One of them.
    pub fn get_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Primary => &mut self.primary,
            Role::Replica => &mut self.replica,
        }
    }

    /// Both, with their roles.
    pub fn into_pairs(self) -> [(Role, T); 2] {
        [(Role::Primary, self.primary), (Role::Replica, self.replica)]
    }
}
