"""What a newcomer does: start, paste what was printed, stop, start again, start a second one beside it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from tests.support.stack import Stack, running_stack

SECOND_START_S = 20
"""A bound against hanging, not a benchmark: on an idle machine it is about 3 s, and tests share theirs."""
