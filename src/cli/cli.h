/*
 * cli - the commands that talk to a running segue.
 *
 * The command line is words and options in any order.  Commands are rows of the
 * table in cli.c, options rows of the table in args.h; usage, help and "did you
 * mean" come from them.  Results go to standard output, everything else to
 * standard error; with --json the result is the admin API's own JSON.
 */
#pragma once

/* What the process exits with. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_REFUSED = 1,     /* the server said no, or the work failed */
    CLI_USAGE = 2,       /* wrong usage or configuration */
    CLI_NO_SERVER = 3,   /* nobody answers at the socket */
    CLI_ROLLED_BACK = 4, /* the update was taken back */
    CLI_INTERRUPTED = 130
};

/* The first word that is not an option (or an option's value); NULL if none. */
const char *cli_command(int argc, char **argv);

/* Runs a client command; the result is the exit code of the process. */
int cli_main(int argc, char **argv);
