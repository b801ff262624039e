"""The one thing that pyproject.toml cannot say: the C module is optional, without a compiler all works as well."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "watchout.gateway._fastpath",
            ["gateway/_fastpath.c"],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
