/*
 * http/parse - HTTP/1.1 heads, strictly (RFC 9112), without IO.
 *
 * The caller collects bytes until http_head_end() finds the end of the head,
 * then parses the head once.  Every span points into the caller's bytes and
 * lives as long as they do.  What RFC 9112 calls ambiguous is refused, never
 * repaired: CL with TE, repeated or signed or overflowing Content-Length, any
 * Transfer-Encoding but one final `chunked`, obs-fold, bare CR or LF, space
 * before a colon, control bytes, a missing or repeated Host, an absolute-form
 * target whose authority differs from Host.
 */
#pragma once
#include "base/always.h"
#include "base/span.h"

enum { HTTP_FIELDS_MAX = 100 };

/* Fields that somebody here acts on.  HOP: hop-by-hop, never forwarded
 * (RFC 9110 section 7.6.1).      id                   name                     hop */
// clang-format off
#define HTTP_FIELDS(X)                                   \
    X(HOST,                "host",                0)     \
    X(CONNECTION,          "connection",          1)     \
    X(KEEP_ALIVE,          "keep-alive",          1)     \
    X(PROXY_CONNECTION,    "proxy-connection",    1)     \
    X(TE,                  "te",                  1)     \
    X(TRAILER,             "trailer",             1)     \
    X(TRANSFER_ENCODING,   "transfer-encoding",   1)     \
    X(UPGRADE,             "upgrade",             1)     \
    X(CONTENT_LENGTH,      "content-length",      0)     \
    X(CONTENT_TYPE,        "content-type",        0)     \
    X(EXPECT,              "expect",              0)     \
    X(DATE,                "date",                0)     \
    X(SERVER,              "server",              0)     \
    X(RETRY_AFTER,         "retry-after",         0)     \
    X(AUTHORIZATION,       "authorization",       0)     \
    X(X_API_KEY,           "x-api-key",           0)     \
    X(ORIGIN,              "origin",              0)     \
    X(X_REQUEST_ID,        "x-request-id",        0)     \
    X(X_FORWARDED_FOR,     "x-forwarded-for",     0)     \
    X(X_FORWARDED_PROTO,   "x-forwarded-proto",   0)     \
    X(X_FORWARDED_HOST,    "x-forwarded-host",    0)     \
    X(X_REAL_IP,           "x-real-ip",           0)     \
    X(FORWARDED,           "forwarded",           0)     \
    X(X_SEGUE_VERSION,     "x-segue-version",     0)     \
    X(X_ACCEL_BUFFERING,   "x-accel-buffering",   0)
// clang-format on

enum http_field_id {
    HTTP_FIELD_OTHER,
#define X(id, name, hop) HTTP_FIELD_##id,
    HTTP_FIELDS(X)
#undef X
        HTTP_NFIELD_IDS
};

struct http_field {
    struct span name;      /* as it came, case kept */
    struct span value;     /* trimmed of OWS */
    enum http_field_id id; /* HTTP_FIELD_OTHER when nobody here acts on it */
    bool hop;              /* hop-by-hop by name, or nominated by Connection */
};

#define HTTP_METHODS(X) X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(OPTIONS) X(PATCH)

enum http_method {
    HTTP_METHOD_OTHER, /* a valid token; CONNECT and TRACE end up here too */
#define X(id) HTTP_##id,
    HTTP_METHODS(X)
#undef X
};

enum http_framing {
    HTTP_BODY_NONE,    /* no body follows */
    HTTP_BODY_LENGTH,  /* content_length bytes follow (may be 0) */
    HTTP_BODY_CHUNKED, /* chunks follow */
    HTTP_BODY_CLOSE    /* answers only: until the connection ends */
};

/* Why a head was refused.  id, HTTP status for a request, sentence. An answer
 * from an engine that is refused is always 502 to the client. */
// clang-format off
#define HTTP_FAULTS(X)                                                                          \
    X(NONE,              200, "no fault")                                                       \
    X(HEAD_TOO_LARGE,    431, "the request head is larger than the limit")                      \
    X(TOO_MANY_FIELDS,   431, "the request has more header fields than the limit")              \
    X(BAD_LINE,          400, "the first line is not valid HTTP/1.1")                           \
    X(BAD_METHOD,        400, "the method is not a valid token")                                \
    X(BAD_TARGET,        400, "the request target is not valid")                                \
    X(BAD_VERSION,       505, "only HTTP/1.0 and HTTP/1.1 are spoken here")                     \
    X(BAD_FIELD_NAME,    400, "a header field name is not a valid token")                       \
    X(BAD_FIELD_VALUE,   400, "a header field value has a control byte")                        \
    X(BARE_CR_OR_LF,     400, "a line ends with a bare CR or LF")                               \
    X(OBS_FOLD,          400, "a header line is folded (obs-fold)")                             \
    X(NO_HOST,           400, "the Host field is missing")                                      \
    X(BAD_HOST,          400, "the Host field is repeated or not valid")                        \
    X(HOST_MISMATCH,     400, "the target's authority and the Host field differ")               \
    X(BAD_LENGTH,        400, "Content-Length is not one plain decimal number")                 \
    X(LENGTH_AND_CODING, 400, "Content-Length and Transfer-Encoding are both there")            \
    X(BAD_CODING,        400, "Transfer-Encoding is not exactly `chunked`")                     \
    X(BAD_CONNECTION,    400, "the Connection field is not a list of at most 32 options")       \
    X(BAD_EXPECT,        417, "only `Expect: 100-continue` is understood")                      \
    X(BAD_STATUS,        502, "the status line is not valid")                                   \
    X(BAD_CHUNK,         400, "a chunk is not framed as RFC 9112 section 7.1 says")             \
    X(BAD_TRAILER,       400, "the trailer section is not valid or too large")
// clang-format on

enum http_fault {
#define X(id, status, text) HTTP_FAULT_##id,
    HTTP_FAULTS(X)
#undef X
};

const char *http_fault_text(enum http_fault fault);
int http_fault_status(enum http_fault fault);

struct http_request_head {
    enum http_method method;
    struct span method_text;
    struct span target; /* as it came */
    struct span path;   /* "/v1/models"; "*" for OPTIONS * */
    struct span query;  /* without '?'; n is 0 when there is none */
    struct span host;   /* value of Host; n is 0 for HTTP/1.0 without one */
    int minor;          /* 0 or 1 */
    enum http_framing framing;
    uint64_t content_length; /* HTTP_BODY_LENGTH only */
    bool keep_alive;         /* what the client asked for or defaults to */
    bool expect_continue;    /* the client waits for a 100 before it sends its body */
    size_t nfields;
    struct http_field fields[HTTP_FIELDS_MAX];
};

struct http_response_head {
    int status; /* 100..599 */
    int minor;
    struct span reason;
    enum http_framing framing; /* as if the request were not HEAD; see below */
    uint64_t content_length;
    bool keep_alive;
    size_t nfields;
    struct http_field fields[HTTP_FIELDS_MAX];
};

/*
 * Looks for the empty line that ends a head.  *scanned is 0 at first and says
 * from where to look next time, so that dripping bytes cost nothing twice.
 * Returns the head's length with its final CRLF CRLF, or 0 when more bytes are
 * needed.  Leading CRLFs before a request line (RFC 9112 section 2.2) are the
 * caller's to skip with http_skip_empty_lines().  A bare LF LF also ends the
 * search, so that the parser can refuse it instead of the caller waiting.
 */
size_t http_head_end(const char *p, size_t n, size_t *scanned);

/* How many bytes of leading CRLF (at most one pair is skipped a call). */
size_t http_skip_empty_lines(const char *p, size_t n);

/* Parses a whole head of n bytes, as measured by http_head_end(). */
enum http_fault http_parse_request(struct http_request_head *head, const char *p,
                                   size_t n) MUST_CHECK;

/* The same for an answer.  `head_only`: the request was HEAD; then, and for
 * 1xx, 204 and 304, framing is HTTP_BODY_NONE. 101 is refused. */
enum http_fault http_parse_response(struct http_response_head *head, const char *p, size_t n,
                                    bool head_only) MUST_CHECK;

/* First field with this id, or NULL. */
const struct http_field *http_field_find(const struct http_field *fields, size_t n,
                                         enum http_field_id id);

const char *http_reason(int status);
