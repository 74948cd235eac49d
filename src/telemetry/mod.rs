//! What operators see of the server: metrics and logs.

mod logging;

pub use logging::{LogConfig, LogFormat, start_logging};
