/* gateway/error - see error.h. */
#include "gateway/error.h"

static const struct gateway_error_row rows[] = {
#define X(id, status, type, code, text) [GATEWAY_ERROR_##id] = {status, type, code, text},
    GATEWAY_ERRORS(X)
#undef X
};

const struct gateway_error_row *gateway_error_row(enum gateway_error e)
{
    return &rows[e];
}
