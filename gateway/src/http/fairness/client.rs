//! By what requests are counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use process::server::network;

use crate::http::input::token::Caller;

/// By what requests are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// The name of its token.
    Token(Arc<str>),
    /// Its address, or the first 64 bits of one of IPv6.
    Network(IpAddr),
    /// Where there are too many networks to count each: those that share a number.
    Crowd(u16),
    /// Its requests came over no connection. All of these are one.
    Nowhere,
}

impl Client {
    /// Who sends a request that was admitted.
    pub(crate) fn of(caller: &Caller, extensions: &Extensions) -> Self {
        caller.as_ref().map_or_else(|| Self::by_address(extensions), |name| Self::Token(Arc::clone(name)))
    }

    /// Who sends a request, whatever token it shows.
    pub(crate) fn by_address(extensions: &Extensions) -> Self {
        let address = extensions.get::<ConnectInfo<SocketAddr>>();
        address.map_or(Self::Nowhere, |ConnectInfo(address)| Self::Network(network(address.ip())))
    }
}
