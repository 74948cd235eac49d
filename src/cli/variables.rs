//! Options that come from the environment.
//!
//! A variable that is empty says nothing: that is how a line `NAME=` in a file of variables is meant, and how shells take one away
//! for a single command. An error in a variable's value names the variable.

use std::env;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, CommandFactory, Error, FromArgMatches};

/// Parses the process's arguments, and the variables that stand in for them. Ends the process where they are wrong.
pub(super) fn parse<C: CommandFactory + FromArgMatches>() -> C {
    let command = C::command().mut_subcommands(|verb| verb.mut_args(without_empty));
    let parsed = command.clone().try_get_matches().and_then(|matches| C::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| naming_variable(error, command).exit())
}

fn without_empty(argument: Arg) -> Arg {
    let value = argument.get_env().and_then(env::var_os);
    if value.is_some_and(|value| value.is_empty()) { argument.env(Resettable::Reset) } else { argument }
}

/// `error` with the variable that it is about, where it is about one.
fn naming_variable(mut error: Error, mut command: Command) -> Error {
    let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else { return error };
    // Only then do its options have the names under which errors know them.
    command.build();
    let verb = command.get_subcommands().find(|verb| env::args_os().nth(1).is_some_and(|name| name == verb.get_name()));
    let argument = verb.into_iter().flat_map(Command::get_arguments).find(|argument| argument.to_string() == *about);
    if let Some(argument) = argument
        && let Some(variable) = argument.get_env()
        && env::var_os(variable).is_some()
        && !argument.get_long().is_some_and(|long| is_given(long, env::args_os()))
    {
        let about = format!("{about} [env: {}]", variable.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(about));
    }
    error
}

/// Whether the option called `long` is on the command line, before which the environment has nothing to say.
fn is_given(long: &str, mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.any(|argument| {
        let option = argument.to_str().and_then(|argument| argument.strip_prefix("--"));
        option.is_some_and(|option| option.split('=').next() == Some(long))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_given_by_its_whole_name() {
        let given = |argument: &str| is_given("http-address", std::iter::once(argument.into()));
        assert!(given("--http-address") && given("--http-address=127.0.0.1:0"));
        assert!(!given("--http-addresses") && !given("http-address") && !given("127.0.0.1:0"));
    }
}
