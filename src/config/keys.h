/*
 * keys - the table of everything that can stand in segue.yaml.
 *
 * One row per key: where it stands, what it is, its default, its range, whom it
 * belongs to, a sentence.  The reader, config_free(), config_version_copy() and
 * the documentation all walk this table; a new key is one row here and one
 * member in config.h.
 */
#pragma once
#include "config/config.h"

// clang-format off
/* Where a key stands.  id, path shown to people, sentence for the documentation */
#define SCOPES(X)                                                                         \
    X(ROOT,     "",                        "The file itself.")                            \
    X(TLS,      "tls",                     "The certificate for addresses in `listen` that begin with `https://`. Both files are looked at every few seconds, and at SIGHUP; new connections get what is new, a mistake is logged and changes nothing.") \
    X(ADMIN,    "admin",                   "The interface for the command line.")         \
    X(ACCESS_LOG, "access_log",            "One line for each request; `docs/observability.md` has the fields.") \
    X(METRICS,  "metrics",                 "What Prometheus reads; `docs/observability.md` has the names.") \
    X(LIMITS,   "limits",                  "What one client, or all of them, may take.")  \
    X(TIMEOUTS, "timeouts",                "How long the gateway waits, and for what.")   \
    X(MODEL,    "models.NAME",             "A model: the public name that clients ask for.") \
    X(READY,    "models.NAME.ready",       "The known question that a version must answer before it gets a request.") \
    X(UPDATE,   "models.NAME.update",      "How an update goes, and when it is taken back.") \
    X(VERSION,  "models.NAME.versions.NAME", "A version of the model, and the engine that runs it.")

enum scope {
#define X(id, path, note) SCOPE_##id,
    SCOPES(X)
#undef X
    NSCOPES
};

/*         id        what a value must be, for messages and documentation */
#define KEY_TYPES(X)                                                        \
    X(TEXT,     "text")                                                     \
    X(PROSE,    "text")                                   /* may have line breaks */ \
    X(REGEX,    "a POSIX extended regular expression")                      \
    X(NAME,     "a name")                                                   \
    X(PATH,     "a path")                                                   \
    X(URL,      "http://HOST[:PORT][/PREFIX] or unix:PATH")                 \
    X(ADDRESSES, "HOST:PORT, or a list of them")                            \
    X(ALIASES,  "a name, or a list of them")                                \
    X(WORDS,    "a list of words")                                          \
    X(NUMBER,   "a whole number")                                           \
    X(SIZE,     "a size such as 64KiB or 8MiB")                             \
    X(DURATION, "a duration such as 500ms, 10s or 2m")                      \
    X(SHARE,    "a share such as 0.05 or 5%")                               \
    X(CHOICE,   "one of")                                                   \
    X(SECTION,  "a map of keys")                                            \
    X(ENTRIES,  "a map from names to their settings")
// clang-format on

enum key_type {
#define X(id, what) KEY_##id,
    KEY_TYPES(X)
#undef X
};

struct key {
    enum scope scope;
    const char *name;
    enum key_type type;
    size_t offset;        /* of the member in the scope's struct; SECTION: of the inner struct */
    size_t width;         /* of the member, in bytes */
    uint64_t min, max;    /* NUMBER, SIZE, DURATION; SHARE in hundredths of a percent */
    const char *fallback; /* the default as it would be written, or NULL */
    const char *fallback_note;  /* a default that is computed, in words, or NULL */
    const char *const *choices; /* CHOICE: NULL-terminated; the value is the index */
    uint32_t engines;           /* VERSION scope: bits of engines it belongs to; 0: all */
    uint32_t required;   /* VERSION scope: bits of engines that need it; ROOT, MODEL: not 0 */
    enum scope inner;    /* SECTION, ENTRIES */
    size_t count_offset; /* ENTRIES: the size_t beside the array */
    size_t entry_size;   /* ENTRIES: its first member is `char *name` */
    const char *help;
};

extern const struct key keys[];
extern const size_t nkeys;

/* Loops over the rows of one scope. */
#define KEYS_OF(key, s)                                           \
    for (const struct key *key = keys; key < keys + nkeys; key++) \
        if (key->scope == (s))

const char *scope_path(enum scope s);
const char *scope_note(enum scope s);
const char *key_type_text(enum key_type t);

/* The allowed range with its unit ("1 to 16", "1ms to 1d"), or "". */
enum { KEY_RANGE_MAX = 96 };
void key_range_text(const struct key *key, char out[KEY_RANGE_MAX]);
