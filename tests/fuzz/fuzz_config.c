/*
 * fuzz_config - any bytes as a configuration: either a whole config that says
 * nothing wrong, or no config and at least one line that says why.
 */
#include <stdint.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf said = {0};
    struct config *c = config_parse(span_of((const char *)data, size), "f.yaml", "/f", &said);

    if (c) {
        struct config_version copy;
        ALWAYS(c->nmodels > 0 && c->listen[0] && c->state && c->admin_socket);
        for (size_t i = 0; i < c->nmodels; i++)
            ALWAYS(config_version_find(&c->models[i], c->models[i].serve));
        config_version_copy(&copy, &c->models[0].versions[0]);
        config_version_fini(&copy);
    } else {
        ALWAYS(buf_pending(&said) > 0);
    }
    /* Each line is about this file; nothing can forge another. */
    for (const char *line = buf_cstr(&said); *line; line = strchr(line, '\n') + 1)
        ALWAYS(strncmp(line, "f.yaml:", strlen("f.yaml:")) == 0);
    config_free(c);
    buf_fini(&said);
    return 0;
}
