"""TorchServe's Python packages `ts` and `model_archiver` for programs of one's own: tests of handlers, and scripts that write archives.

    import servegrpc.compat_api

    servegrpc.compat_api.install()

    from model_archiver import ModelArchiver, ModelArchiverConfig
    from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext

Workers answer `import ts…` by themselves.
"""

from servegrpc.compat_api.names import MODEL_ARCHIVER
from servegrpc.worker import ts_alias


def install() -> None:
    """Answer imports of `ts` and `model_archiver` in this process, even when the real packages are installed; once is enough."""
    ts_alias.install()
    ts_alias.install(MODEL_ARCHIVER)
