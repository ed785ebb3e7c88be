// Runs in the audio thread: hands the microphone's sound on, mono, in blocks of about a tenth of a second.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(4096);
    this.count = 0;
  }

  process([channels]) {
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.block[this.count++] = sum / channels.length;
      if (this.count === this.block.length) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Float32Array(4096);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
