"""The reward `judge`: a model that judges completions by a rubric, at an endpoint or in a folder.

`section` is [judge] of a recipe, `consent` says who may be asked, `prompts` what is asked and how
an answer is read, `client` asks, `cache` remembers, `judge` pays, `trial` measures the judge before
a run. Limits: text only. Nothing is imported here: every command reads the section, few ask.
"""
