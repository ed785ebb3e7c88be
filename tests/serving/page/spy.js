// Keeps what the page asked of the microphone, for the tests.
window.spied = [];
const asked = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (asked) {
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await asked(wanted);
    window.spied.push({ wanted, stream });
    return stream;
  };
}
