# beatmeter on a processor, with the models that ship; works without a network.
#
#   docker build --tag beatmeter .
#   docker run --rm --network none --volume ~/Music:/music:ro beatmeter predict song.mp3
#
# AAC, WMA and the sound of videos need ffmpeg, which makes the image larger:
#
#   docker build --tag beatmeter --build-arg PACKAGES=ffmpeg .
FROM python:3.11-slim

ARG PACKAGES=""
RUN if [ -n "$PACKAGES" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# the packages first, and torch before all: they change seldom, so that another version of the code builds in seconds.
# This index has torch without CUDA, which is a tenth of the size, and pip prefers it: 2.13.0+cpu is newer than 2.13.0.
# What torch needs comes from the ordinary index. An empty TORCH_INDEX takes torch from there too
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt pyproject.toml ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} torch
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needed.txt \
    && pip install --constraint constraints.txt --requirement needed.txt
COPY README.md LICENSE MANIFEST.in ./
COPY beatmeter beatmeter
RUN pip install --constraint constraints.txt --no-deps . && rm -rf /build/*

# any user may run it, as in `docker run --user $(id -u)`: what libraries keep goes to a home that all may write to
RUN useradd --create-home --uid 1000 listener && chmod 0777 /home/listener && mkdir /music && chown listener /music
ENV HOME=/home/listener NUMBA_CACHE_DIR=/tmp/numba
USER listener
WORKDIR /music
ENTRYPOINT ["beatmeter"]
CMD ["--help"]
