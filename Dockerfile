# wildaffect with the web page and ONNX, on the CPU or, with `--gpus all`, on an NVIDIA GPU:
#
#   docker build -t wildaffect .
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" wildaffect predict clip.mp4 --out predictions
#   docker run --rm -p 127.0.0.1:7860:7860 wildaffect app --host 0.0.0.0 --no-browser
#
# This image has never been built: no Docker was at hand. The tests run its RUN lines as a script.
FROM python:3.11-slim
COPY . /src
RUN pip install --no-cache-dir "/src[app,export]"
RUN rm -r /src
# For any user: libraries keep caches there.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["wildaffect"]
CMD ["--help"]
