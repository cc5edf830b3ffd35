#!/bin/sh
# Installs what building needs and this machine lacks (Debian, Ubuntu), and says what it does. Does nothing
# where all of it is there, and needs no rights then.
set -eu

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
# Whether one of the files that a pattern may stand for is there.
any() { for file in "$@"; do [ -e "$file" ] && return 0; done; return 1; }

cd "$(dirname "$0")/.."
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! have cargo; then
    say "Rust is missing: install version $wanted_rust or newer from https://rustup.rs, then try again."
    exit 1
fi
rust=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$wanted_rust" "$rust" | sort -V | head -n 1)" != "$wanted_rust" ]; then
    say "Rust $wanted_rust or newer is needed, and cargo is version $rust:" \
        "run 'rustup update', or install it from https://rustup.rs."
    exit 1
fi

missing=
need() { missing="$missing $1"; }
{ have cc && have c++; } || need build-essential
have pkg-config || need pkg-config
{ have pkg-config && pkg-config --exists openssl; } || need libssl-dev
# bindgen loads libclang, and libclang needs the headers that belong to it.
if [ -z "${LIBCLANG_PATH:-}" ]; then
    { any /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* \
        /usr/lib/libclang*.so* &&
        any /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h; } ||
        need libclang-dev
fi

install=$missing
have ccache || install="$install ccache" # wanted, not needed

if [ -n "$install" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    if have apt-get && { [ -z "$as_root" ] || have sudo; }; then
        say "Missing on this machine:$install. Installing with: $as_root apt-get install$install"
        installed=yes
        { $as_root apt-get update -qq &&
            # shellcheck disable=SC2086
            $as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -qq -y --no-install-recommends $install; } >&2 ||
            installed=no
        # Installed together with the compiler, ccache does not see all of its names.
        if [ -x /usr/sbin/update-ccache-symlinks ]; then $as_root /usr/sbin/update-ccache-symlinks || true; fi
    else
        installed=no
    fi
    if [ "$installed" = no ] && [ -n "$missing" ]; then
        say "Please install what is missing, then try again; the Debian packages are:$missing."
        say "(Elsewhere: a C++ compiler, pkg-config, the OpenSSL headers, and libclang with its headers.)"
        exit 1
    fi
fi

if ! any "${CARGO_TARGET_DIR:-target}"/release/build/librocksdb-sys-*/out/librocksdb.a; then
    say "RocksDB is compiled from source, once: 10 to 20 minutes on two cores. Later builds take seconds."
fi
