import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.examples import EXAMPLES, Phantom, SynthesisedSound, example_path
from xai_demo.records import TASKS
from xai_demo.synthesis import BUILDERS, TRUTH_FILE, ground_truths, write_examples
from xai_demo.synthesis.everyday import DURATION_S, SOUNDS, everyday_sound
from xai_demo.synthesis.lung import (
    CRACKLES,
    SAMPLE_RATE_HZ,
    Breathing,
    Crackles,
    Wheeze,
    breath_noise,
    coloured_noise,
    crackle,
    crackle_burst,
    lung_sound,
    mix_at_snr,
    wheeze,
)
from xai_demo.synthesis.thorax import SIZE, Opacity, thorax_phantom

PATCH = Opacity(label="patch", x=0.28, y=0.58, radius_x=0.12, radius_y=0.12)


def rng(seed=0):
    return np.random.default_rng(seed)


def band_power(samples, low_hz, high_hz, rate=SAMPLE_RATE_HZ):
    power = np.abs(np.fft.rfft(samples)) ** 2 / len(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    return power[(frequencies >= low_hz) & (frequencies <= high_hz)].sum()


def inside(pixels, box):
    top, left = round(box.y * SIZE), round(box.x * SIZE)
    rows, columns = round(box.height * SIZE), round(box.width * SIZE)
    return pixels[top : top + rows, left : left + columns]


# Wheezes


@pytest.mark.parametrize("frequency_hz", [100, 250, 400, 800])
def test_a_pure_wheeze_peaks_within_a_bin_of_its_frequency(frequency_hz):
    event = Wheeze(
        start_s=0, duration_s=1.0, frequency_hz=frequency_hz, harmonics=1, modulation=0.0
    )
    wave, band = wheeze(rng(), event)
    assert abs(int(np.argmax(np.abs(np.fft.rfft(wave)))) - frequency_hz) <= 1  # bins of 1 Hz
    assert band == (frequency_hz, frequency_hz)


def test_a_wheeze_lasts_as_long_as_asked_and_starts_and_ends_softly():
    wave, _ = wheeze(rng(), Wheeze(start_s=0, duration_s=0.25))
    assert len(wave) == 2000
    assert np.abs(wave[:8]).max() < 0.01 < 0.5 < np.abs(wave).max()
    assert np.abs(wave[-8:]).max() < 0.02


def test_each_harmonic_is_a_quarter_of_the_one_below_it():
    event = Wheeze(start_s=0, duration_s=1.0, frequency_hz=200, harmonics=3, modulation=0.0)
    spectrum = np.abs(np.fft.rfft(wheeze(rng(), event)[0]))
    peaks = [spectrum[k * 200 - 3 : k * 200 + 4].max() for k in (1, 2, 3, 4)]
    assert peaks[1] / peaks[0] == pytest.approx(0.25, rel=0.02)
    assert peaks[2] / peaks[1] == pytest.approx(0.25, rel=0.02)
    assert peaks[3] < 1e-3 * peaks[0]


def test_a_wheeze_keeps_to_the_band_it_states():
    wave, (low_hz, high_hz) = wheeze(rng(3), Wheeze(start_s=0, duration_s=0.8, modulation=0.08))
    assert 0.92 * 400 <= low_hz < 400 < 3 * 400 * 0.92 < high_hz <= 1.08 * 3 * 400
    assert band_power(wave, low_hz - 20, high_hz + 20) > 0.99 * band_power(wave, 0, 4000)


# Crackles


@pytest.mark.parametrize(
    ("kind", "length_s", "pitch_hz"), [("fine", 0.005, 650), ("coarse", 0.015, 350)]
)
def test_crackles_have_the_published_length_and_pitch(kind, length_s, pitch_hz):
    wave = crackle(kind)
    assert len(wave) == length_s * SAMPLE_RATE_HZ
    spectrum = np.abs(np.fft.rfft(wave, 8000))
    assert abs(int(np.argmax(spectrum)) - pitch_hz) < 0.15 * pitch_hz
    assert np.abs(wave).max() == pytest.approx(1.0)


def test_a_crackle_is_damped_by_the_same_factor_every_half_period():
    # 250 Hz: half a period is 16 samples; it falls to 1/20 in 120 samples.
    wave = crackle("coarse", frequency_hz=250.0)
    expected = -(20 ** (-16 / 120))
    for earlier in (36, 40, 44):  # between the rounded beginning and the rounded end
        assert wave[earlier + 16] / wave[earlier] == pytest.approx(expected, rel=1e-6)


def test_a_burst_fills_its_time_and_holds_the_number_asked_for():
    event = Crackles(start_s=0, duration_s=0.5, kind="fine", per_second=20)
    burst = crackle_burst(rng(), event)
    assert len(burst) == 4000
    sounding = np.flatnonzero(np.abs(burst) > 1e-9)
    assert sounding[0] < 40
    assert sounding[-1] > 4000 - 40
    onsets = 1 + np.count_nonzero(np.diff(sounding) > 40)
    assert onsets == 10


# Mixing


@pytest.mark.parametrize("snr_db", [-9.0, 0.0, 6.5, 20.0])
def test_the_mixer_keeps_the_asked_ratio_to_a_tenth_of_a_decibel(snr_db):
    background = rng(1).standard_normal(8000).astype(np.float32)
    event = np.zeros(8000)
    event[2000:4000] = np.sin(2 * np.pi * 400 * np.arange(1, 2001) / 8000 + 0.1)
    added = mix_at_snr(background, event, snr_db) - background
    span = slice(2000, 4000)
    ratio = np.mean(added[span] ** 2) / np.mean(background[span].astype(float) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.1)
    assert np.abs(added[:2000]).max() < 1e-6


def test_the_mixer_says_why_it_cannot_scale_silence():
    tone, silence = np.ones(10), np.zeros(10)
    for background, event in ((silence, tone), (tone, silence)):
        with pytest.raises(UnsuitableError, match=r"both must be above 0"):
            mix_at_snr(background, event, 0.0)
    with pytest.raises(UnsuitableError, match=r"\(9,\).*\(10,\)"):
        mix_at_snr(tone, tone[:9], 0.0)


# Breathing and whole lung sounds


def test_noise_follows_its_curve():
    noise = coloured_noise(rng(), 80_000, 8000, (0, 999, 1001, 4000), (0, 0, -20, -20))
    low, high = band_power(noise, 200, 900) / 700, band_power(noise, 1100, 3900) / 2800
    assert 10 * np.log10(low / high) == pytest.approx(20, abs=0.5)
    assert noise.std() == pytest.approx(1.0)


def test_breathing_in_is_louder_than_breathing_out_and_that_louder_than_the_pause():
    breathing = Breathing(
        duration_s=4.0,
        first_breath_s=0.5,
        period_s=10.0,
        inspiration_s=1.1,
        expiration_s=0.9,
        heart_per_minute=1e-3,
    )
    sound = breath_noise(rng(), breathing)
    loudness = [np.std(sound[round(s * 8000) : round((s + 0.3) * 8000)]) for s in (0.9, 2.4, 3.7)]
    assert loudness[0] > 1.5 * loudness[1] > 1.5 * 1.5 * loudness[2] > 0
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(breathing.level)


def test_heart_sounds_come_at_the_rate_asked_for():
    still = Breathing(duration_s=6.0, first_breath_s=7.0, heart_per_minute=60.0)
    sound = breath_noise(rng(), still)
    thumps = [band_power(sound[k * 800 : (k + 1) * 800], 20, 80) for k in range(50)]
    first = [thumps[10 * k + 1] for k in range(5)]  # at 0.1 s, 1.1 s, ...
    between = [thumps[10 * k + 8] for k in range(5)]
    assert np.mean(first) > 4 * np.mean(between)
    assert min(first) > 2 * max(between)


@pytest.mark.parametrize(
    "event",
    [
        Wheeze(start_s=2.0, duration_s=0.5, snr_db=6.0),
        Crackles(start_s=2.0, duration_s=0.5, kind="fine", snr_db=6.0),
        Crackles(start_s=2.0, duration_s=0.5, kind="coarse", snr_db=6.0),
    ],
)
def test_an_event_has_its_energy_where_the_truth_says(event):
    made = lung_sound(seed=5, events=(event,))
    (truth,) = made.truth
    assert truth.label == ("wheeze" if isinstance(event, Wheeze) else "crackle")
    assert (truth.start_s, truth.end_s) == (2.0, 2.5)
    added = made.samples - lung_sound(seed=5).samples
    start, end = round(truth.start_s * 8000), round(truth.end_s * 8000)
    assert np.abs(added[:start]).max() < 1e-6
    assert np.abs(added[end:]).max() < 1e-6
    within = band_power(added[start:end], truth.low_hz - 20, truth.high_hz + 20)
    assert within > 0.9 * band_power(added[start:end], 0, 4000)


def test_the_same_seed_gives_the_same_sound_and_another_another():
    events = (Wheeze(start_s=1.0, duration_s=0.5), Crackles(start_s=4.0, duration_s=0.3))
    once, again = (lung_sound(seed=7, events=events) for _ in range(2))
    assert np.array_equal(once.samples, again.samples)
    assert once.truth == again.truth
    assert not np.array_equal(once.samples, lung_sound(seed=8, events=events).samples)


def test_an_event_past_the_end_is_refused():
    with pytest.raises(UnsuitableError, match=r"71200 to 75200.*72000"):
        lung_sound(seed=1, events=(Wheeze(start_s=8.9, duration_s=0.5),))


# The thorax


def test_a_film_is_dark_in_the_lungs_bright_in_the_spine_and_black_outside():
    pixels = thorax_phantom(seed=1).pixels
    assert pixels.shape == (SIZE, SIZE)
    assert pixels.dtype == np.uint8
    lung, spine = pixels[200:300, 130:190].mean(), pixels[430:500, 248:264].mean()
    abdomen, air = pixels[430:500, 150:230].mean(), pixels[5:40, 5:15].mean()
    assert air < 10 < 40 < lung < abdomen - 50 < abdomen < spine


def test_an_opacity_brightens_its_box_and_nothing_else():
    film, clear = thorax_phantom(seed=4, opacities=(PATCH,)), thorax_phantom(seed=4)
    (box,) = film.truth
    assert box.label == "patch"
    assert box.x < PATCH.x < box.x + box.width
    assert box.y < PATCH.y < box.y + box.height
    brightness = inside(film.pixels, box).mean()
    assert brightness > inside(clear.pixels, box).mean() + 20
    assert abs(film.pixels[:100].mean() - clear.pixels[:100].mean()) < 1


def test_an_opacity_is_brighter_than_its_mirror_region():
    patch = Opacity(label="patch", x=0.28, y=0.40, radius_x=0.09, radius_y=0.08)
    film = thorax_phantom(seed=4, opacities=(patch,))
    (box,) = film.truth
    there = inside(film.pixels, box).mean()
    assert there > inside(film.pixels[:, ::-1], box).mean() + 20


def test_the_same_seed_gives_the_same_film_and_another_another():
    film = thorax_phantom(seed=2, opacities=(PATCH,))
    assert np.array_equal(film.pixels, thorax_phantom(seed=2, opacities=(PATCH,)).pixels)
    assert not np.array_equal(film.pixels, thorax_phantom(seed=3, opacities=(PATCH,)).pixels)


def test_an_opacity_outside_the_lungs_is_refused():
    belly = Opacity(label="belly", x=0.5, y=0.95, radius_x=0.03, radius_y=0.03)
    with pytest.raises(UnsuitableError, match=r"'belly'.*it must lie inside one"):
        thorax_phantom(seed=1, opacities=(belly,))


# Everyday sounds


@pytest.mark.parametrize("label", SOUNDS)
def test_an_everyday_sound_is_five_finite_seconds_with_a_truth_inside_them(label):
    made = everyday_sound(label, seed=1)
    assert len(made.samples) == DURATION_S * made.sample_rate_hz == 160_000
    assert np.isfinite(made.samples).all()
    assert np.abs(made.samples).max() == pytest.approx(0.7)
    assert np.array_equal(made.samples, everyday_sound(label, seed=1).samples)
    for truth in made.truth:
        assert truth.label == label
        assert 0 <= truth.start_s < truth.end_s <= DURATION_S
        assert 0 < truth.low_hz < truth.high_hz <= 16_000


@pytest.mark.parametrize("label", ["Tick-tock", "Dog", "Crowing, cock-a-doodle-doo"])
def test_sounds_with_pauses_hold_their_energy_in_the_stated_spans(label):
    made = everyday_sound(label, seed=1)
    within = np.zeros(len(made.samples), bool)
    for truth in made.truth:
        within[round(truth.start_s * 32_000) : round(truth.end_s * 32_000)] = True
    inner, outer = (np.mean(made.samples[mask] ** 2) for mask in (within, ~within))
    assert inner > 20 * outer


def test_the_rotor_beats_eleven_times_a_second():
    loudness = np.abs(everyday_sound("Helicopter", seed=1).samples)
    envelope = loudness.reshape(-1, 320).mean(axis=1)  # 100 a second, 5 s: bins of 0.2 Hz
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
    assert np.argmax(spectrum[10:]) + 10 == pytest.approx(11 / 0.2, abs=1)


def test_the_clock_ticks_once_a_second():
    starts = [truth.start_s for truth in everyday_sound("Tick-tock", seed=1).truth]
    assert np.diff(starts) == pytest.approx([1.0] * 4)


def test_an_unknown_everyday_sound_is_named_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'Piano'.*Helicopter"):
        everyday_sound("Piano", seed=1)


# The examples that ship


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_shipped_file_is_what_the_generator_makes(name):
    made, path = BUILDERS[name](), example_path(name)
    if isinstance(made, SynthesisedSound):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == made.sample_rate_hz
        assert np.abs(samples - made.samples).max() <= 2 / 32768  # 16 bit
    else:
        assert isinstance(made, Phantom)
        with Image.open(path) as film:
            assert film.mode == "L"
            difference = np.asarray(film).astype(int) - made.pixels
        assert np.abs(difference).max() <= 1
        assert np.count_nonzero(difference) < 0.001 * difference.size  # rounding elsewhere


def test_the_shipped_truth_is_in_step_with_the_generator():
    shipped = json.loads((example_path("wheeze").parent / TRUTH_FILE).read_text(encoding="utf-8"))
    assert shipped == json.loads(json.dumps(ground_truths()))


def test_the_shipped_files_are_exactly_the_table_and_small():
    folder = example_path("wheeze").parent
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(files) == {example.file for example in EXAMPLES.values()} | {TRUTH_FILE}
    assert sum(files.values()) < 1_500_000


def test_writing_makes_every_file_anew(tmp_path):
    write_examples(tmp_path / "made")
    made = {path.name for path in (tmp_path / "made").iterdir()}
    assert made == {example.file for example in EXAMPLES.values()} | {TRUTH_FILE}
    assert soundfile.info(tmp_path / "made" / "wheeze.flac").subtype == "PCM_16"


def test_every_task_has_examples_and_each_says_that_it_is_synthesised():
    counts = {task: sum(e.task == task for e in EXAMPLES.values()) for task in TASKS}
    assert min(counts.values()) >= 3
    assert all("synthesised" in example.expectation for example in EXAMPLES.values())


def test_the_words_of_the_wheezes_name_their_number_length_and_beginning():
    example = EXAMPLES["wheeze"]
    truth = BUILDERS["wheeze"]().truth
    assert len(truth) == 5
    assert {round(t.end_s - t.start_s, 6) for t in truth} == {0.55}
    assert truth[0].start_s == 1.0
    assert example.expectation.startswith("Five wheezes of 0.55 s from 1.0 s on")


@pytest.mark.parametrize("name", ["wheeze", "crackles", "crackles-and-wheeze"])
def test_crackles_fill_breaths_in_and_wheezes_breaths_out(name):
    breathing = Breathing()
    for truth in BUILDERS[name]().truth:
        middle = (truth.start_s + truth.end_s) / 2 - breathing.first_breath_s
        breath_in = middle % breathing.period_s < breathing.inspiration_s
        assert breath_in == (truth.label == "crackle")
        pitch_hz = CRACKLES["coarse"][1] if breath_in else 400
        assert truth.low_hz < 1.2 * pitch_hz < truth.high_hz


def test_a_recording_begins_with_the_touch_of_the_stethoscope():
    touched, untouched = (
        lung_sound(seed=1, breathing=Breathing(contact_db=db)).samples for db in (11.0, -200.0)
    )
    assert np.array_equal(touched[1200:], untouched[1200:])  # over in 0.15 s
    ratio = np.abs(touched[:1200] - untouched[:1200]).max() / np.abs(untouched).max()
    assert 20 * np.log10(ratio) == pytest.approx(11.0, abs=0.1)
    assert np.abs(touched).max() < 1


def test_an_unknown_example_is_named_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'cough'.*wheeze"):
        example_path("cough")


def test_importing_the_table_imports_neither_scipy_nor_torch():
    code = (
        "import sys, xai_demo.examples as e; e.example_path('wheeze'); "
        "print({'scipy', 'torch', 'soundfile', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
