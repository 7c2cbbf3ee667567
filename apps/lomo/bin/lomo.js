#!/usr/bin/env node
// The `lomo` command. A file that is there before anything is built, so that package managers can link it.
import '../dist/cli.js';
