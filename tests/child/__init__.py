"""One real child process, without a supervisor: forked, signalled, and waited for by the test."""
