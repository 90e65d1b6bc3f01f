/*
 * internal - what the files of src/cli share: the commands' handlers, and how
 * they say things.
 */
#pragma once
#include <jansson.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/screen.h"

/* Each runs one command and returns the exit code. Words are without the command's own. */
int run_status(const struct args *args);
int run_top(const struct args *args);
int run_deploy(const struct args *args);
int run_switch(const struct args *args);
int run_rollback(const struct args *args);
int run_versions(const struct args *args);
int run_rollouts(const struct args *args);
int run_receipt(const struct args *args);
int run_logs(const struct args *args);
int run_stop(const struct args *args);
int run_key_add(const struct args *args);
int run_key_list(const struct args *args);
int run_key_revoke(const struct args *args);
int run_translate(const struct args *args);
int run_config_check(const struct args *args);
int run_config_keys(const struct args *args);
int run_version(const struct args *args);

/* "segue: " and the sentence on standard error; returns `code`. */
int say_error(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The colour of a state's name, whatever it is the state of. */
enum ink state_ink(const char *state);

/* The object as one line on standard output. */
void say_json(const json_t *object);

/* A receipt's essentials in a few lines on standard output. */
void say_receipt(const json_t *receipt);

/* Waits for an operation's end and shows its steps; the exit code. With --json
 * the end event is printed instead. */
int follow_operation(const struct args *args, int64_t operation, const char *title);
