# A node of a cluster with GPUs (ray_cluster.yaml: docker): the project and its locked packages, for
# Ray's launcher, which starts the container with its own command.
#
#   docker build --tag SET-ME/duologue:0.1.0 . && docker push SET-ME/duologue:0.1.0
#
# CUDA's libraries come with PyTorch's wheels; the base brings what the driver of the machine needs.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# A C compiler and Python's headers for Triton, which compiles as it runs; rsync for the launcher.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates gcc libc6-dev libnuma1 procps python3.12-dev python3.12-venv rsync \
    && rm -rf /var/lib/apt/lists/*

# The user of Ubuntu's own image: 1000, as on the machine, so that both may write to /shared.
USER ubuntu
WORKDIR /home/ubuntu
ENV PATH=/home/ubuntu/duologue-env/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# The packages before the project: they change seldom, and are nearly all of the image.
COPY --chown=ubuntu:ubuntu requirements-gpu.txt ./
RUN python3.12 -m venv duologue-env \
    && echo 'export PATH=$HOME/duologue-env/bin:$PATH' >> .bashrc \
    && python -m pip install --no-deps --requirement requirements-gpu.txt

COPY --chown=ubuntu:ubuntu pyproject.toml README.md LICENSE ./project/
COPY --chown=ubuntu:ubuntu specs ./project/specs/
COPY --chown=ubuntu:ubuntu actors ./project/actors/
COPY --chown=ubuntu:ubuntu trainer ./project/trainer/
COPY --chown=ubuntu:ubuntu cluster ./project/cluster/
RUN python -m pip install --no-deps ./project && rm -rf project
