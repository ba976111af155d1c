from results.document.plots.labels import Labels, box_of, shared_area
from results.document.plots.points import Point


def point(seconds, mse):
    return Point(trial_id="t0", source="sampler", seconds_per_epoch=seconds, val_mse=mse, says=())


def test_names_of_points_that_lie_close_do_not_overlap():
    labels = Labels((20.0, 500.0), (0.38, 0.45))

    for shift, name in enumerate(["exact, baseline", "plan-a", "plan-b", "fastest"]):
        place = labels.place(point(100.0 + shift, 0.40 + shift / 1000), name, "bottom left")
        assert place.split()[0] in ("bottom", "top", "middle")

    boxes = labels.taken
    assert len(boxes) == 4
    assert all(shared_area(one, other) == 0 for index, one in enumerate(boxes) for other in boxes[:index])


def test_a_name_keeps_its_preferred_place_where_it_is_free():
    labels = Labels((10.0, 100.0), (0.3, 0.5))

    assert labels.place(point(30.0, 0.4), "plan-a", "top center") == "top center"
    assert box_of(10, 10, "ab<br>c", "top right")[3] > box_of(10, 10, "ab", "top right")[3]
