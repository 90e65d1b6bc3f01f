/* keys - see keys.h. */
#include "config/keys.h"

#include <stdio.h>

#include "config/units.h"

// clang-format off
enum { MS = 1, SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };
enum { KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB };

static const char *const engine_names[] = {
#define X(id, name, managed) name,
    CONFIG_ENGINES(X)
#undef X
    NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const access_formats[] = {"json", "text", NULL}; /* index = access_log_text */
static const char *const key_modes[] = {"none", "required", NULL}; /* index = keys_required */
static const char *const spares[] = {"disk", "running", NULL}; /* index = spare_running */

#define ENGINE(id) (UINT32_C(1) << CONFIG_ENGINE_##id)
#define MANAGED (ENGINE(BUILTIN) | ENGINE(LLAMA_SERVER) | ENGINE(COMMAND))

#define AT(type, member) .offset = offsetof(struct type, member), .width = sizeof(((struct type *)0)->member)

const struct key keys[] = {
    {SCOPE_ROOT, "listen", KEY_ADDRESSES, AT(config, listen), .fallback = "127.0.0.1:8080",
     .help = "Where clients connect. Numeric addresses (`[::1]:8080` for IPv6), `localhost`, or `*:PORT` for every IPv4 address; port 0 takes any free one. With `https://` before it the address speaks TLS (1.2 or 1.3) and needs `tls`."},
    {SCOPE_ROOT, "workers", KEY_NUMBER, AT(config, workers), .min = 1, .max = 16, .fallback_note = "number of cores",
     .help = "Threads of the gateway."},
    {SCOPE_ROOT, "state", KEY_PATH, AT(config, state), .fallback = "run",
     .help = "Folder for the store, sockets and logs. Made if it is not there."},
    {SCOPE_ROOT, "log_level", KEY_CHOICE, AT(config, log_level), .fallback = "info", .choices = log_levels,
     .help = "The least important lines that are logged."},
    {SCOPE_ROOT, "keys", KEY_CHOICE, AT(config, keys_required), .fallback = "none", .choices = key_modes,
     .help = "Whether a request under `/v1/` needs an API key; `segue key add NAME` makes one. With `none` a key that is shown counts all the same."},
    {SCOPE_ROOT, "engine_program", KEY_PATH, AT(config, engine_program), .fallback_note = "beside the segue executable",
     .help = "The `segue-engine` that runs `builtin` versions."},
    {SCOPE_ROOT, "sticky_header", KEY_TEXT, AT(config, sticky_header), .fallback_note = "none",
     .help = "A request header that names a conversation, for instance `X-Session-Id`: while versions share the requests, a conversation stays with one. Without it the `user` member or the first message does."},
    {SCOPE_ROOT, "cors", KEY_WORDS, AT(config, cors), .fallback_note = "none",
     .help = "Origins (`https://app.example`) whose pages a browser lets read the answers; `\"*\"` is every origin."},
    {SCOPE_ROOT, "tls", KEY_SECTION, .inner = SCOPE_TLS, .help = "See below."},
    {SCOPE_ROOT, "admin", KEY_SECTION, .inner = SCOPE_ADMIN, .help = "See below."},
    {SCOPE_ROOT, "access_log", KEY_SECTION, .inner = SCOPE_ACCESS_LOG, .help = "See below."},
    {SCOPE_ROOT, "metrics", KEY_SECTION, .inner = SCOPE_METRICS, .help = "See below."},
    {SCOPE_ROOT, "limits", KEY_SECTION, AT(config, limits), .inner = SCOPE_LIMITS, .help = "See below."},
    {SCOPE_ROOT, "timeouts", KEY_SECTION, AT(config, timeouts), .inner = SCOPE_TIMEOUTS, .help = "See below."},
    {SCOPE_ROOT, "models", KEY_ENTRIES, AT(config, models), .inner = SCOPE_MODEL, .required = 1,
     .count_offset = offsetof(struct config, nmodels), .entry_size = sizeof(struct config_model),
     .help = "At least one model. Names have letters, digits, `.`, `_` and `-`, and at most 64 of them."},

    {SCOPE_TLS, "certificate", KEY_PATH, AT(config, tls_certificate), .fallback_note = "no TLS",
     .help = "PEM: the server's certificate, then those that lead to its issuer."},
    {SCOPE_TLS, "key", KEY_PATH, AT(config, tls_key), .fallback_note = "no TLS",
     .help = "PEM: its private key, without a passphrase."},

    {SCOPE_ADMIN, "socket", KEY_PATH, AT(config, admin_socket), .fallback_note = "`admin.sock` in the `state` folder",
     .help = "Unix socket of the admin API, mode 0600."},

    {SCOPE_ACCESS_LOG, "file", KEY_PATH, AT(config, access_log_file), .fallback_note = "no access log",
     .help = "Lines are appended to it; made with mode 0640 if it is not there. After a rotation SIGHUP to the manager opens it anew."},
    {SCOPE_ACCESS_LOG, "format", KEY_CHOICE, AT(config, access_log_text), .fallback = "json", .choices = access_formats,
     .help = "One JSON object a line, or `name=value` text."},

    {SCOPE_METRICS, "listen", KEY_ADDRESSES, AT(config, metrics_listen), .fallback_note = "only `GET /metrics` on the admin socket",
     .help = "Where `GET /metrics` is answered over TCP, without a key: an address that only Prometheus reaches."},

    {SCOPE_LIMITS, "head_bytes", KEY_SIZE, AT(config_limits, head_bytes), .min = KIB, .max = MIB, .fallback = "16KiB",
     .help = "Request line and header of a request; more is answered 431."},
    {SCOPE_LIMITS, "body_bytes", KEY_SIZE, AT(config_limits, body_bytes), .min = KIB, .max = GIB, .fallback = "8MiB",
     .help = "Body of a request; more is answered 413."},
    {SCOPE_LIMITS, "connections", KEY_NUMBER, AT(config_limits, connections), .min = 1, .max = 1000000, .fallback = "20000",
     .help = "Client connections of all workers together."},
    {SCOPE_LIMITS, "client_buffer_bytes", KEY_SIZE, AT(config_limits, client_buffer_bytes), .min = 4 * KIB, .max = GIB, .fallback = "256KiB",
     .help = "Answer bytes that a client has not taken before its engine is not read any more."},
    {SCOPE_LIMITS, "exchanges", KEY_NUMBER, AT(config_limits, exchanges), .min = 1, .max = 1000000, .fallback = "10000",
     .help = "Requests that are being answered or held, of all clients; more are answered 503 at once."},
    {SCOPE_LIMITS, "client_connections", KEY_NUMBER, AT(config_limits, client_connections), .min = 1, .max = 1000000, .fallback = "20000",
     .help = "Connections of one client address (IPv6: of one /64); more are answered 503 and closed."},
    {SCOPE_LIMITS, "body_memory_bytes", KEY_SIZE, AT(config_limits, body_memory_bytes), .min = MIB, .max = 64ull * GIB, .fallback = "256MiB",
     .help = "Memory for request bodies that are still arriving, of all clients; more are answered 503."},

    {SCOPE_TIMEOUTS, "head", KEY_DURATION, AT(config_timeouts, head), .min = MS, .max = DAY, .fallback = "10s",
     .help = "First byte of a request to the end of its head; a TLS handshake."},
    {SCOPE_TIMEOUTS, "body", KEY_DURATION, AT(config_timeouts, body), .min = MS, .max = DAY, .fallback = "60s",
     .help = "End of the head to the end of the body."},
    {SCOPE_TIMEOUTS, "idle", KEY_DURATION, AT(config_timeouts, idle), .min = MS, .max = DAY, .fallback = "75s",
     .help = "A kept-alive client connection without a request."},
    {SCOPE_TIMEOUTS, "send", KEY_DURATION, AT(config_timeouts, send), .min = MS, .max = DAY, .fallback = "60s",
     .help = "A client that takes no byte of its answer."},
    {SCOPE_TIMEOUTS, "connect", KEY_DURATION, AT(config_timeouts, connect), .min = MS, .max = DAY, .fallback = "2s",
     .help = "Connecting to an engine."},
    {SCOPE_TIMEOUTS, "first_byte", KEY_DURATION, AT(config_timeouts, first_byte), .min = MS, .max = DAY, .fallback = "5m",
     .help = "Request sent to the first byte of the engine's answer."},
    {SCOPE_TIMEOUTS, "between_bytes", KEY_DURATION, AT(config_timeouts, between_bytes), .min = MS, .max = DAY, .fallback = "2m",
     .help = "Silence within an engine's answer."},
    {SCOPE_TIMEOUTS, "upstream_idle", KEY_DURATION, AT(config_timeouts, upstream_idle), .min = MS, .max = DAY, .fallback = "30s",
     .help = "A kept engine connection that nobody uses."},

    {SCOPE_MODEL, "serve", KEY_NAME, AT(config_model, serve), .fallback_note = "the only version, if there is one",
     .help = "The version that serves at the very first start. Later the store knows which one does."},
    {SCOPE_MODEL, "aliases", KEY_ALIASES, AT(config_model, aliases), .fallback_note = "none",
     .help = "Further names that clients may use; `/` and `:` are allowed in them."},
    {SCOPE_MODEL, "hold", KEY_DURATION, AT(config_model, hold_ms), .min = 0, .max = HOUR, .fallback = "30s",
     .help = "How long a request waits for a ready replica before it is answered 503; 0 is not at all."},
    {SCOPE_MODEL, "hold_max", KEY_NUMBER, AT(config_model, hold_max), .min = 0, .max = 1000000, .fallback = "1024",
     .help = "How many requests may wait, over all workers."},
    {SCOPE_MODEL, "ready", KEY_SECTION, AT(config_model, ready), .inner = SCOPE_READY, .help = "See below."},
    {SCOPE_MODEL, "update", KEY_SECTION, AT(config_model, update), .inner = SCOPE_UPDATE, .help = "See below."},
    {SCOPE_MODEL, "versions", KEY_ENTRIES, AT(config_model, versions), .inner = SCOPE_VERSION, .required = 1,
     .count_offset = offsetof(struct config_model, nversions), .entry_size = sizeof(struct config_version),
     .help = "At least one version; `segue deploy` adds others. Names as for models."},

    {SCOPE_READY, "ask", KEY_PROSE, AT(config_ready, ask),
     .fallback = "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n你好，世界。",
     .help = "The user message of the question."},
    {SCOPE_READY, "expect", KEY_REGEX, AT(config_ready, expect), .fallback_note = "any answer that is not one character repeated",
     .help = "What the answer must match, in any case (upper or lower)."},
    {SCOPE_READY, "max_tokens", KEY_NUMBER, AT(config_ready, max_tokens), .min = 1, .max = 4096, .fallback = "32",
     .help = "Length of the answer that is asked for."},
    {SCOPE_READY, "timeout", KEY_DURATION, AT(config_ready, timeout_ms), .min = MS, .max = HOUR, .fallback = "30s",
     .help = "For one answer."},
    {SCOPE_READY, "start_timeout", KEY_DURATION, AT(config_ready, start_timeout_ms), .min = 100 * MS, .max = DAY, .fallback = "10m",
     .help = "From the start of the engine until it is ready."},

    {SCOPE_UPDATE, "drain", KEY_DURATION, AT(config_update, drain_ms), .min = 0, .max = DAY, .fallback = "10m",
     .help = "How long answers of the old version may take to end before they are cut."},
    {SCOPE_UPDATE, "settle_requests", KEY_NUMBER, AT(config_update, settle_requests), .min = 0, .max = 1000000000, .fallback = "0",
     .help = "The update is done when the new version has answered so many requests; 0 is at once."},
    {SCOPE_UPDATE, "settle", KEY_DURATION, AT(config_update, settle_ms), .min = 0, .max = DAY, .fallback = "30s",
     .help = "The update is done after this time at the latest."},
    {SCOPE_UPDATE, "settle_failures", KEY_SHARE, AT(config_update, settle_failures), .min = 0, .max = 10000, .fallback = "0.05",
     .help = "Share of failed answers of the new version, while it settles, above which the old one takes over again."},
    {SCOPE_UPDATE, "spare", KEY_CHOICE, AT(config_update, spare_running), .fallback = "running", .choices = spares,
     .help = "Whether the old version is kept running for an instant way back, or only on disk."},

    {SCOPE_VERSION, "engine", KEY_CHOICE, AT(config_version, engine), .choices = engine_names, .required = ~UINT32_C(0),
     .help = "What runs it: segue's own engine, an endpoint that somebody else runs, llama.cpp's server, or any program."},
    {SCOPE_VERSION, "path", KEY_PATH, AT(config_version, path),
     .engines = ENGINE(BUILTIN) | ENGINE(LLAMA_SERVER), .required = ENGINE(BUILTIN) | ENGINE(LLAMA_SERVER),
     .help = "The model file (GGUF)."},
    {SCOPE_VERSION, "url", KEY_URL, AT(config_version, url), .engines = ENGINE(OPENAI), .required = ENGINE(OPENAI),
     .help = "Where the endpoint answers, without `/v1`."},
    {SCOPE_VERSION, "served_model_name", KEY_TEXT, AT(config_version, served_model_name),
     .fallback_note = "`MODEL@VERSION`; for `openai` the model's name",
     .help = "The name by which this engine knows the model; `model` in a request is rewritten to it."},
    {SCOPE_VERSION, "program", KEY_TEXT, AT(config_version, program), .engines = ENGINE(LLAMA_SERVER),
     .fallback_note = "`llama-server` on PATH", .help = "The executable; looked up on PATH when it has no `/`."},
    {SCOPE_VERSION, "run", KEY_WORDS, AT(config_version, run), .engines = ENGINE(COMMAND), .required = ENGINE(COMMAND),
     .help = "The command line. `{port}` or `{socket}` says where it must listen, `{name}` is its served model name."},
    {SCOPE_VERSION, "args", KEY_WORDS, AT(config_version, args), .engines = MANAGED, .fallback_note = "none",
     .help = "Further arguments."},
    {SCOPE_VERSION, "threads", KEY_NUMBER, AT(config_version, threads), .min = 0, .max = 1024, .engines = ENGINE(BUILTIN), .fallback = "0",
     .help = "Threads that compute; 0 is as many as there are cores."},
    {SCOPE_VERSION, "parallel", KEY_NUMBER, AT(config_version, parallel), .min = 1, .max = 256, .engines = ENGINE(BUILTIN), .fallback = "16",
     .help = "Answers that are decoded together."},
    {SCOPE_VERSION, "ctx_size", KEY_NUMBER, AT(config_version, ctx_size), .min = 64, .max = 262144, .engines = ENGINE(BUILTIN), .fallback = "1024",
     .help = "Tokens of one question and its answer."},
    {SCOPE_VERSION, "replicas", KEY_NUMBER, AT(config_version, replicas), .min = 1, .max = 64, .engines = MANAGED, .fallback = "1",
     .help = "Processes of this version."},
};
// clang-format on

const size_t nkeys = COUNT_OF(keys);

const char *scope_path(enum scope s)
{
    static const char *const paths[] = {
#define X(id, path, note) path,
        SCOPES(X)
#undef X
    };
    return paths[s];
}

const char *scope_note(enum scope s)
{
    static const char *const notes[] = {
#define X(id, path, note) note,
        SCOPES(X)
#undef X
    };
    return notes[s];
}

const char *key_type_text(enum key_type t)
{
    static const char *const texts[] = {
#define X(id, what) what,
        KEY_TYPES(X)
#undef X
    };
    return texts[t];
}

void key_range_text(const struct key *key, char out[KEY_RANGE_MAX])
{
    char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];

    out[0] = '\0';
    if (key->type == KEY_NUMBER) {
        snprintf(low, sizeof(low), "%llu", (unsigned long long)key->min);
        snprintf(high, sizeof(high), "%llu", (unsigned long long)key->max);
    } else if (key->type == KEY_SIZE) {
        size_text(key->min, low);
        size_text(key->max, high);
    } else if (key->type == KEY_DURATION) {
        duration_text(key->min, low);
        duration_text(key->max, high);
    } else if (key->type == KEY_SHARE) {
        share_text((double)key->min / 10000, low);
        share_text((double)key->max / 10000, high);
    } else {
        return;
    }
    snprintf(out, KEY_RANGE_MAX, "%s to %s", low, high);
}
