"""The pen strokes of the ten digits, from which the data set `digits` is drawn.

A style is a list of strokes, a stroke is a list of control points "x,y" in a box of 10 by 10, y downwards. The pen
follows the quadratic B-spline of the points: it starts at the first, ends at the last and rounds off those in between;
a point that is written twice is a corner.
"""

STYLES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (  # 0: an oval; a narrow oval whose ends cross
        ("5,0 2,0 1.5,5 2,10 5,10 8,10 8.5,5 8,0 5,0",),
        ("6.5,0.5 4,-0.5 2,3 2.2,8 4,10.5 7,10 8.2,6 7.5,1.5 5.5,-0.3 3.5,0.8",),
    ),
    (  # 1: a bar; with a flag; with a flag and a foot
        ("5,0 5,10",),
        ("2.8,2.8 5.2,0 5.2,0 5,10",),
        ("3,2.2 5.2,0 5.2,0 5.2,10", "2.5,10 8,10"),
    ),
    (  # 2: with an angular foot; with a loop at the foot
        ("2,2.5 2,0 5,0 8,0 8,3 7,6 2,10 2,10 8.5,10",),
        ("2,2.2 2.8,0 5.2,0 8.2,0 8,3.8 6,7.5 3.2,10.2 1.2,9.8 1.8,8 4,8.2 6,10 8.8,9.4",),
    ),
    (  # 3: round; with a flat top
        ("2,1.2 3.5,0 8,-0.3 8,4.6 4.4,4.8 4.4,4.8 8.7,5 8.7,10.2 4,10.4 1.6,8.8",),
        ("2,0 8,0 8,0 4.6,4 4.6,4 8.8,4 8.8,10.2 4.2,10.5 1.6,8.9",),
    ),
    (  # 4: open with straight arms; closed; open with a round arm
        ("3.4,0 2,6.2 2,6.2 8.6,6.2", "6.8,2 6.6,10"),
        ("6.6,10 6.6,0 6.6,0 1.5,6.8 1.5,6.8 8.8,6.8",),
        ("2.4,0.4 1.6,6.4 5.5,6.2 7.6,5", "7.8,0 7.2,10"),
    ),
    (  # 5: in one stroke; with the bar as a second stroke
        ("8,0 3,0 3,0 2.4,4.6 2.4,4.6 4,3.4 8.7,3.4 8.7,10.2 4,10.4 1.5,8.8",),
        ("3.2,0.6 2.6,4.4 2.6,4.4 8.8,3 9,10.2 4.2,10.6 1.4,9", "3.2,0.6 8.6,0"),
    ),
    (  # 6: with a bent stem; with a straight stem and a small bowl
        ("7.4,0.2 3.2,1 1.5,6 2,10 5,10 8.5,10 8.5,5.2 5,5 2.2,5.4 2,7.5",),
        ("6,0 2.6,4.6 1.8,8.4 3,10.4 6,10.2 8.2,9.4 7.8,6.2 5.4,6 3.2,6.2 2.3,8.4",),
    ),
    (  # 7: plain; with a bar across; with a serif and a bent stem
        ("1.5,0 8.5,0 8.5,0 4.4,10",),
        ("1.5,0.2 8.5,0 8.5,0 4.2,10", "3.4,5 8,4.8"),
        ("1.5,2.2 1.8,0.2 1.8,0.2 8.6,0 8.6,0 5.4,4 4.6,10",),
    ),
    (  # 8: in one crossing stroke; as two rings
        ("7.8,1.4 6,-0.4 1.8,0 1.8,4 5,5 8.6,6 8.6,10 5,10 1.4,10 1.4,6 5,5 8.4,4 8.2,1 7,0.2",),
        ("5,0 2,0 2,4.6 5,4.6 8,4.6 8,0 5,0", "5,4.6 1.5,4.6 1.5,10 5,10 8.5,10 8.5,4.6 5,4.6"),
    ),
    (  # 9: with a straight stem; with a curled one
        ("8,1.8 7,0 5,0 2,0 2,5.2 5,5.2 7.8,5 8,1.8 8,1.8 7.4,10",),
        ("8,2 6.4,-0.2 2,-0.2 2,5.6 6,5.2 8,4 8,2 8,2 8.6,10.2 5,10.2 3,10.2 2.4,8.8",),
    ),
)
