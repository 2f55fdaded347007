"""`labelgen reprompt`: new prompts for a cache with CLIP's features. `redo` does the work, `cli` has the command."""
