"""The Stack Definition Language of Akash, exactly: `parse` a file, get its groups, manifest and hash, or all that is wrong."""

from tenant.sdl.problem import LoweringRefused, Problem, SdlRefused, as_json, as_text, problem_body
from tenant.sdl.sdl import Sdl, parse

__all__ = ["LoweringRefused", "Problem", "Sdl", "SdlRefused", "as_json", "as_text", "parse", "problem_body"]
