"""Builds the three C extensions; everything else is said in pyproject.toml.

`optional=True`: where there is no C compiler the install still succeeds, and scoring and training take the slower torch path.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "prerank.index._maxsim",
            sources=["prerank/index/_maxsim.c"],
            depends=[f"prerank/index/{name}.h" for name in ("_maxsim_kernel", "_table", "_best")],
            extra_compile_args=["-O3", "-std=gnu11", "-Wno-psabi"],
            optional=True,
        ),
        Extension(
            "prerank.serving._player",
            sources=["prerank/serving/_player.c"],
            depends=["prerank/serving/_player_linear.h"],
            libraries=["m"],
            extra_compile_args=["-O3", "-std=gnu11", "-Wno-psabi"],
            optional=True,
        ),
        Extension(
            "prerank.layers._normed",
            sources=["prerank/layers/_normed.c"],
            libraries=["m"],
            extra_compile_args=["-O3", "-std=gnu11", "-Wno-psabi", "-fno-math-errno"],
            optional=True,
        ),
    ]
)
