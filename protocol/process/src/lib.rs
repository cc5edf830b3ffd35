//! What both kinds of process do alike around their work.
