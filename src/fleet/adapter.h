/*
 * adapter - what differs from engine to engine, as one table: where it listens,
 * how its command line is made, what it can be asked.
 */
#pragma once
#include "base/err.h"
#include "config/config.h"

enum adapter_place {
    ADAPTER_URL,    /* where the configuration says; nothing is started */
    ADAPTER_SOCKET, /* a unix socket in STATE/e */
    ADAPTER_PORT    /* a free port on 127.0.0.1, chosen before each start */
};

struct adapter {
    enum adapter_place place;
    bool health_may_lack;     /* 404 at /health: /v1/models is asked instead */
    bool lists_models;        /* /v1/models must have its name for the model (FAULTS A9) */
    const char *const *words; /* command line, {placeholders}; NULL: nothing is started,
                                 or the version's own `run` */
};

const struct adapter *adapter_of(const struct config_version *v);

/* Where this version will listen: ADAPTER_PORT or _SOCKET of a `command` by its words. */
enum adapter_place adapter_place(const struct config_version *v);

/*
 * What can be known without starting it: the model file is there and whole,
 * the program can be executed, `run` has a place to listen.  0, or -1 with a
 * sentence.
 */
int adapter_check(const struct config *config, const struct config_version *v,
                  struct err *err) MUST_CHECK;

/* The command line for an address ("unix:PATH" or "127.0.0.1:PORT"); free with words_free(). */
char **adapter_argv(const struct config *config, const struct config_version *v,
                    const char *address);
void words_free(char **words);

/* A command line as one string, words with odd bytes in quotes; the caller frees it. */
char *words_join(char *const *words);
