/*
 * config - the immutable result of reading segue.yaml.
 *
 * File -> YAML tree with positions -> struct config + all diagnostics.  Nothing
 * is half-applied: either there is a whole struct config or there are errors.
 * Every key is one row of the table in keys.c (name, type, default, range,
 * unit, help); parser, `segue config` and docs/configuration.md read that row.
 * Relative paths in the file are resolved against the file's folder.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

// clang-format off
/*        id            name            started by us   can be asked for */
#define CONFIG_ENGINES(X)                                                \
    X(BUILTIN,      "builtin",      1)  /* segue-engine: path */          \
    X(OPENAI,       "openai",       0)  /* somebody else's: url */        \
    X(LLAMA_SERVER, "llama-server", 1)  /* path, found on PATH or `program` */ \
    X(COMMAND,      "command",      1)  /* any program: run, address from {port} or {socket} */
// clang-format on

enum config_engine {
#define X(id, name, managed) CONFIG_ENGINE_##id,
    CONFIG_ENGINES(X)
#undef X
};

const char *config_engine_name(enum config_engine e);
int config_engine_by_name(const char *name); /* -1: none */
bool config_engine_managed(enum config_engine e);

struct config_version {
    char *name; /* owned, like every pointer here; "v1" */
    enum config_engine engine;
    char *path;              /* builtin, llama-server: model file; absolute */
    char *url;               /* openai: "http://127.0.0.1:8000" or "unix:/path" */
    char *served_model_name; /* the name this engine knows the model by; never NULL:
                                defaults to "MODEL@VERSION", for openai to the model's name */
    char *program;           /* llama-server: executable; NULL: found on PATH */
    char **run;        /* command: argv, NULL-terminated; {port}, {socket}, {name} are replaced */
    char **args;       /* further arguments, NULL-terminated; may be NULL */
    unsigned threads;  /* builtin: compute threads; 0: as many as cores */
    unsigned parallel; /* builtin: streams decoded together; default 16 */
    unsigned ctx_size; /* builtin: tokens for one stream; default 1024 */
    unsigned replicas; /* default 1 */
};

/* The known question that a version must answer before it is ready. */
struct config_ready {
    char *ask;    /* user message; default: HY-MT's prompt for 你好，世界。 to English */
    char *expect; /* POSIX extended regex (case-insensitive) that the answer must match; NULL: any
                     non-empty answer that is not one character repeated */
    unsigned max_tokens;
    uint64_t timeout_ms;       /* for one answer; default 30 s */
    uint64_t start_timeout_ms; /* spawn to ready; default 600 s */
};

struct config_update {
    uint64_t drain_ms;        /* how long old streams may take before they are cut; default 600 s */
    uint64_t settle_requests; /* the update is done when the new version has answered so many
                                 requests ... default 0: at once */
    uint64_t settle_ms;       /* ... or when this time has passed; default 30 s */
    double settle_failures;   /* share of failed answers of the new version in the settling
                                 window that makes it roll back by itself; default 0.05 */
    bool spare_running;       /* `spare: running` (default) or `disk` */
};

struct config_model {
    char *name;                      /* "hy-mt" */
    char **aliases;                  /* NULL-terminated; may be NULL */
    char *serve;                     /* version that serves at the very first start; never NULL */
    struct config_version *versions; /* owned array */
    size_t nversions;
    struct config_ready ready;
    struct config_update update;
    uint64_t hold_ms;  /* how long a request may wait for a ready replica; default 30 s */
    unsigned hold_max; /* how many may wait, over all workers; default 1024 */
};

struct config_limits {
    size_t head_bytes;            /* default 16 KiB; 1 KiB..1 MiB */
    size_t body_bytes;            /* default 8 MiB; up to 1 GiB */
    unsigned connections;         /* of all workers; default 20000 */
    unsigned client_buffer_bytes; /* unsent answer bytes before the engine is not read any more;
                                     default 256 KiB */
    unsigned exchanges;           /* answered or held at once; default 10000 */
    unsigned client_connections;  /* of one client address; default 20000 */
    size_t body_memory_bytes;     /* bodies that are arriving; default 256 MiB */
};

struct config_timeouts {    /* all in milliseconds */
    uint64_t head;          /* first byte of a request to the end of its head; 10 s */
    uint64_t body;          /* end of head to end of body; 60 s */
    uint64_t idle;          /* kept-alive connection without a request; 75 s */
    uint64_t send;          /* client takes no byte of its answer; 60 s */
    uint64_t connect;       /* to an engine; 2 s */
    uint64_t first_byte;    /* request sent to first byte of the answer's head; 300 s */
    uint64_t between_bytes; /* silence within an answer; 120 s */
    uint64_t upstream_idle; /* a pooled engine connection; 30 s */
};

struct config {
    char *file;            /* the file's absolute path */
    char **listen;         /* NULL-terminated "HOST:PORT" or "https://HOST:PORT"; at least one */
    unsigned workers;      /* default: number of cores; 1..16 */
    char *tls_certificate; /* absolute path; set if an address in `listen` is https:// */
    char *tls_key;
    char *admin_socket;    /* absolute path; default STATE/admin.sock */
    char *access_log_file; /* absolute path; NULL: no access log */
    bool access_log_text;  /* `format: text` and not `json` */
    char **metrics_listen; /* NULL-terminated "HOST:PORT"; may be NULL */
    char *state;           /* absolute folder; default ./run */
    char *log_level;       /* "info" */
    char **cors;           /* origins whose pages may ask, NULL-terminated; NULL: none */
    char *sticky_header;   /* a header that names a conversation; NULL: none */
    bool keys_required;    /* `keys: required` and not `none` */
    char *engine_program;  /* segue-engine; default: beside the segue executable */
    struct config_limits limits;
    struct config_timeouts timeouts;
    struct config_model *models; /* owned array, at least one */
    size_t nmodels;
};

/*
 * Reads and checks a file.  NULL on errors; then `diagnostics` holds one line
 * each: "segue.yaml:12:5: error: unknown key 'lisen'; did you mean 'listen'?".
 * Warnings may be there with a non-NULL result too.
 */
struct config *config_load(const char *file, struct buf *diagnostics);

/* The same from memory; `name` is used in diagnostics, `folder` for relative paths. */
struct config *config_parse(struct span text, const char *name, const char *folder,
                            struct buf *diagnostics);
void config_free(struct config *c);

const struct config_model *config_model_find(const struct config *c, const char *name);
const struct config_version *config_version_find(const struct config_model *m, const char *name);

/* A version with every default in place, for one that no file describes. */
void config_version_init(struct config_version *v, const char *name);

/* A deep copy / release of one version (the store and the fleet keep their own). */
void config_version_copy(struct config_version *to, const struct config_version *from);
void config_version_fini(struct config_version *v);

/* An address of `listen` that speaks TLS. */
#define ADDRESS_TLS "https://"
bool address_is_tls(const char *address);

/* Model and version names: [A-Za-z0-9][A-Za-z0-9._-]{0,63}; no '@', no '/'. */
bool config_name_ok(const char *name);

/* Writes the table of keys as Markdown (docs/configuration.md is made from it). */
void config_describe(struct buf *out);
