/*
 * terminal - a picture that is drawn over itself, and one key.
 *
 * Whatever ends the program (q, Ctrl-C, SIGTERM, an error), terminal_end() gives the
 * terminal back as it was.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* False when standard input or output is no terminal that can be drawn on. */
bool terminal_begin(void);
void terminal_end(void);

unsigned terminal_rows(void);

/* Draws the lines from the top; those that have no room are left out. */
void terminal_draw(struct span text);

/* Waits; true when the user wants to leave (q, Ctrl-C, end of input, SIGTERM). Comes back
 * earlier when the window changes its size. */
bool terminal_wait(uint64_t ms);
