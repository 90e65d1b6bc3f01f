/* expect - see expect.h. */
#include "expect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

static char *unescape(const char *s)
{
    struct buf b = {0};

    for (; *s; s++) {
        if (*s == '\\' && s[1]) {
            s++;
            buf_add_char(&b, *s == 'n' ? '\n' : *s == 't' ? '\t' : *s);
        } else {
            buf_add_char(&b, *s);
        }
    }
    return buf_take(&b);
}

static void put(struct expect *e, int version, size_t sentence, const char *text)
{
    if (!e->text[version])
        e->text[version] = mem_zero(e->sentences * sizeof(char *));
    free(e->text[version][sentence]);
    e->text[version][sentence] = unescape(text);
}

static int put_line(struct expect *e, char *line, const struct script *script, struct names *names)
{
    char *save, *version = strtok_r(line, "\t", &save);
    char *sentence = strtok_r(NULL, "\t", &save);
    char *text = strtok_r(NULL, "\t\r\n", &save);

    if (!sentence || !text)
        return -1;
    for (size_t i = 0; i < e->sentences; i++)
        if (strcmp(sentence, "*") == 0 || strcmp(sentence, script->sentences[i]) == 0)
            put(e, names_index(names, version), i, text);
    return 0;
}

int expect_read(struct expect *e, const char *path, const struct script *script,
                struct names *names, struct err *err)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    int bad = 0;

    *e = (struct expect){.sentences = script->count};
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(err, 0, "cannot open %s: %s", path, strerror(errno));
    while (!bad && getline(&line, &room, f) > 0) {
        number++;
        bad = put_line(e, line, script, names);
    }
    free(line);
    fclose(f);
    if (!bad)
        return 0;
    expect_fini(e);
    return err_set(err, 0, "%s:%zu: not VERSION<TAB>SENTENCE<TAB>TEXT", path, number);
}

void expect_fini(struct expect *e)
{
    for (int v = 0; v < NAMES_MAX; v++) {
        for (size_t i = 0; e->text[v] && i < e->sentences; i++)
            free(e->text[v][i]);
        free(e->text[v]);
        e->text[v] = NULL;
    }
}

const char *expect_text(const struct expect *e, int version, size_t sentence)
{
    if (version < 0 || !e->text[version])
        return NULL;
    return e->text[version][sentence];
}
