"""Training at a free pace as a person starts it: components in this process, or each in a process of its own on Ray.

A process for each costs some memory, and makes the loss of one a matter of that one alone.
"""

from __future__ import annotations

from contextlib import ExitStack

from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.training.free_running import FreeResult, train_components
from launch.console.progress import ProgressReporter
from launch.run_folder.folder import CONFIG
from launch.settings.load import dump_settings


def train_in_turns(settings: RunSettings, address: str | None, reporter: ProgressReporter) -> FreeResult:
    """Train the components that ``settings.only`` names in this process, one step of each after the other.

    Raises:
        FreqganError: as :func:`cluster.training.free_running.train_components`.

    """
    with ExitStack() as reporters:

        def reporter_of(own: RunSettings) -> ProgressReporter:
            return reporters.enter_context(ProgressReporter(own, reporter.console, component=own.only[0]))

        write_config(settings)
        return train_components(settings, reporter, reporter_of, address=address)


def write_config(settings: RunSettings) -> None:
    """Write the settings of the whole run into its folder, where there are none."""
    folder = open_folder(settings.run)
    if not folder.exists(CONFIG):
        folder.write(CONFIG, dump_settings(settings.model_copy(update={"only": ()})).encode())
