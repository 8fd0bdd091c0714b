"""The passes of a step: each lever leaves its gradient as it is, and what they cost is less."""
