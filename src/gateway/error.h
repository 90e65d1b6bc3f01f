/*
 * gateway/error - answers that the gateway itself makes when it must say no.
 *
 * One row: id, HTTP status, OpenAI error type, code, default sentence.
 */
#pragma once
#include <stddef.h>

// clang-format off
#define GATEWAY_ERRORS(X)                                                                                            \
    X(BAD_REQUEST,      400, "invalid_request_error", "bad_request",        "the request is not valid HTTP")                       \
    X(BAD_JSON,         400, "invalid_request_error", "bad_json",           "the body is not a JSON object")                       \
    X(BAD_MODEL,        400, "invalid_request_error", "bad_model",          "`model` must be a string")                            \
    X(INVALID_KEY,      401, "invalid_request_error", "invalid_api_key",    "an API key is needed")                                \
    X(KEY_MODEL,        403, "invalid_request_error", "model_not_allowed",  "the API key may not use this model")                  \
    X(NOT_FOUND,        404, "invalid_request_error", "not_found",          "there is nothing at this path")                       \
    X(MODEL_NOT_FOUND,  404, "invalid_request_error", "model_not_found",    "the model does not exist")                            \
    X(METHOD,           405, "invalid_request_error", "method_not_allowed", "the method is not allowed here")                      \
    X(TIMEOUT,          408, "invalid_request_error", "request_timeout",    "the request did not arrive in time")                  \
    X(LENGTH_REQUIRED,  411, "invalid_request_error", "length_required",    "the request has no body")                             \
    X(TOO_LARGE,        413, "invalid_request_error", "body_too_large",     "the body is larger than the limit")                   \
    X(EXPECTATION,      417, "invalid_request_error", "bad_expect",         "only `Expect: 100-continue` is understood")           \
    X(KEY_TOO_MANY,     429, "rate_limit_error",      "concurrency_limit_exceeded", "the API key has as many requests as it may")  \
    X(KEY_TOO_OFTEN,    429, "rate_limit_error",      "rate_limit_exceeded", "the API key's rate is used up")                      \
    X(HEAD_TOO_LARGE,   431, "invalid_request_error", "head_too_large",     "the request head is larger than the limit")           \
    X(ENGINE_ANSWER,    502, "server_error",          "bad_gateway",        "the engine's answer was not valid HTTP")              \
    X(ENGINE_GONE,      502, "server_error",          "engine_gone",        "the engine ended before it answered")                 \
    X(NO_REPLICA,       503, "server_error",          "no_replica",         "no engine is ready for this model")                   \
    X(HOLD_EXPIRED,     503, "server_error",          "hold_expired",       "no engine became ready in time")                      \
    X(OVERLOADED,       503, "server_error",          "overloaded",         "too many requests are waiting already")               \
    X(STOPPING,         503, "server_error",          "stopping",           "the server is being stopped")                         \
    X(ENGINE_TIMEOUT,   504, "server_error",          "engine_timeout",     "the engine did not answer in time")                   \
    X(VERSION,          505, "invalid_request_error", "http_version",       "only HTTP/1.0 and HTTP/1.1 are spoken here")
// clang-format on

enum gateway_error {
#define X(id, status, type, code, text) GATEWAY_ERROR_##id,
    GATEWAY_ERRORS(X)
#undef X
        GATEWAY_NERRORS
};

struct gateway_error_row {
    int status;
    const char *type, *code, *text;
};

const struct gateway_error_row *gateway_error_row(enum gateway_error e);
