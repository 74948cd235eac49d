//! scheduler
pub mod statistics;
