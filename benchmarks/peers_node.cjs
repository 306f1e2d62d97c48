// Runs the expression net of an npm package on crops (RGB bytes), on tfjs with its wasm backend: peers.py starts it.
//
//     node peers_node.cjs CROPS SIDE ANSWERS PACKAGE ENVIRONMENT
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const [crops, side, answers, name, environment] = process.argv.slice(2);
const installed = createRequire(path.join(path.resolve(environment), "package.json"));
const folder = path.join(environment, "node_modules", name);

// Prepares a face as the package does (src/faceFeatureExtractor/FaceFeatureExtractor.ts).
async function faceApi() {
  installed("@tensorflow/tfjs");
  installed("@tensorflow/tfjs-backend-wasm");
  const api = installed(`${name}/dist/face-api.node-wasm.js`);
  const { tf } = api;
  await tf.setBackend("wasm");
  await api.nets.faceExpressionNet.loadFromDisk(path.join(folder, "model"));
  const classes = Object.keys(new api.FaceExpressions(new Float32Array(7)));
  return { tf, classes, run: (face) => api.nets.faceExpressionNet.forward(face) };
}

// Prepares a face as the package does (src/gear/emotion.ts), which runs its net only behind its own detector.
async function human() {
  const tf = installed("@tensorflow/tfjs");
  installed("@tensorflow/tfjs-backend-wasm");
  await tf.setBackend("wasm");
  const json = JSON.parse(fs.readFileSync(path.join(folder, "models", "emotion.json")));
  const bin = fs.readFileSync(path.join(folder, "models", json.weightsManifest[0].paths[0]));
  const net = await tf.loadGraphModel({
    load: () => ({
      modelTopology: json.modelTopology,
      weightSpecs: json.weightsManifest[0].weights,
      weightData: new Uint8Array(bin).buffer,
    }),
  });
  const [, high, wide, channels] = net.inputs[0].shape;
  if (channels !== 1) throw new Error(`expected a net for grey faces, found ${channels} channels`);
  const run = (face) => tf.tidy(() => {
    const small = tf.image.resizeBilinear(face.div(255).expandDims(0), [high, wide], false);
    return net.execute(small.mul([0.2989, 0.587, 0.114]).sum(3, true).sub(0.5).mul(2));
  });
  return { tf, classes: ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"], run };
}

async function main() {
  const { tf, classes, run } = name.endsWith("human") ? await human() : await faceApi();
  await tf.ready();
  const bytes = fs.readFileSync(crops);
  const length = side * side * 3;
  const probabilities = [];
  for (let start = 0; start < bytes.length; start += length) {
    const face = tf.tensor3d(new Float32Array(bytes.subarray(start, start + length)), [+side, +side, 3]);
    const output = await run(face);
    probabilities.push(Array.from(await output.data()));
    tf.dispose([face, output]);
  }
  fs.writeFileSync(answers, JSON.stringify({ classes, probabilities }));
}

main().catch((error) => { console.error(error.message); process.exit(1); });
