/* first_reference - see first_reference.h. */
#include "first_reference.h"

#include <jansson.h>

enum first first_reference(const char *array, size_t n, const char *first, size_t first_n)
{
    enum { FLAGS = JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL };
    json_t *all = json_loadb(array, n, FLAGS, NULL);
    json_t *one = first_n ? json_loadb(first, first_n, FLAGS, NULL) : NULL;
    json_t *want = json_array_get(all, 0);
    enum first says = !all    ? FIRST_LIMIT
                      : !want ? FIRST_NONE
                      : one && json_equal(one, want) && first[0] > ' ' && first[first_n - 1] > ' '
                          ? FIRST_SAME
                          : FIRST_OTHER;

    json_decref(one);
    json_decref(all);
    return says;
}
